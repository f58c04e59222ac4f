"""Prompt editing: `[from:to:when]` and `[a|b]`, prompts that change while the picture comes about.

A text that does not follow the grammar at all is one prompt, unchanged. Brackets without a partner, and pairs that hold
what no rule allows, are text; so is everything around them, but not what stands whole inside.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import chain, groupby
from typing import Final, NamedTuple, cast

from lark import Lark, Token, Transformer
from lark.exceptions import LarkError
from lark.lark import PostLex

GRAMMAR: Final = r"""
    prompt: (_piece | ":" | WHEN)*

    text: _piece*
    _piece: WORDS | STRAY | _group
    _group: emphasis | edit | alternation | stray

    emphasis: "(" text ")" | "(" text ":" text ")" | "[" text "]"
    edit: "[" (text ":")? text WHEN "]"
    alternation: "[" text ("|" text)+ "]"
    stray: "(" text ":" text (":" text)+ ")" | "[" text ":" text "]" | "[" text ":" text (":" text)+ WHEN? "]"

    WORDS: /(?:[^\\\[\]():|]+|\\.)+/s
    WHEN.1: /:\s*[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*(?=\])/
    %declare STRAY
"""
STRAY: Final = "STRAY"
_WHEN: Final = re.compile(r":\s*[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?\s*\]")  # no edit is without, and few texts have it
DEEPEST: Final = 100  # brackets open at once; a text with more is one prompt, unchanged
_REMEMBERED: Final = 32  # texts: of one submission, each is asked about several times
_OPENING: Final = {")": "(", "]": "["}
_SIGNS: Final = frozenset("()[]")


class Segment(NamedTuple):
    """The text of a prompt up to and with model call `last`, counted from 1."""

    last: int
    text: str


class Text(NamedTuple):
    """A stretch of a prompt. One that is not sound has a bracket in it that belongs to nothing: no rule allows that."""

    pieces: tuple[str | Edit | Alternation, ...]
    is_sound: bool = True


class Edit(NamedTuple):
    """`before` up to `when`, then `after`."""

    before: Text
    after: Text
    when: str  # with a point: a share of the calls; else a number of calls


class Alternation(NamedTuple):
    """The first option in the first call, the second in the second, and so on, again and again."""

    options: tuple[Text, ...]


Child = Token | Text | Edit | Alternation


class Clock(NamedTuple):
    """Tells when an edit happens in a pass of `calls` model calls.

    In a second pass whole numbers go on from the first one's calls, and shares from 1: 0 to 1 is the first pass.
    """

    calls: int
    first_pass_calls: int | None = None

    def last(self, when: str) -> int:
        """Return the last call before the edit; 0: it has been made when the pass begins."""
        number = float(when)
        if "." in when:
            number = (number - (self.first_pass_calls is not None)) * self.calls
        else:
            number -= self.first_pass_calls or 0
        return int(max(0, min(number, self.calls)))


def may_change(text: str) -> bool:
    """Return whether a text may say something else in another call; False is certain, and found without parsing."""
    return "[" in text and ("|" in text or _WHEN.search(text) is not None)


def most_wordings(text: str) -> int:
    """Return how many things a text says at most in a pass of any length, without parsing it.

    Edits part a pass into one stretch more than there are times for them, and within each of these alternations say the
    same again after the product of their options at the latest, of which each has one more than bars.
    """
    return (len({*_WHEN.findall(text)}) + 1) * 2 ** text.count("|") if may_change(text) else 1


def schedule(text: str, calls: int, first_pass_calls: int | None = None) -> Iterator[Segment]:
    """Yield what `text` says during a pass of `calls` model calls: one segment or more, the last ends with the pass.

    A second pass names the calls of the first one.
    """
    parsed = _parsed(text)
    clock, turns = Clock(calls, first_pass_calls), _turns(parsed)
    edits = sorted({calls, *_edits(parsed, clock)} - {0}) or [calls]
    ends = edits if turns == 1 else range(1, calls + 1)
    said: dict[tuple[int, int], str] = {}  # what is said again is not put together again
    for end in ends:
        state = bisect_left(edits, end), (end - 1) % turns
        if state not in said:
            said[state] = _at(parsed, end, clock)
        yield Segment(end, said[state])


def _edits(text: Text, clock: Clock) -> set[int]:
    """Return the last call before each edit."""
    ends: set[int] = set()
    for piece in text.pieces:
        if isinstance(piece, Edit):
            ends.add(clock.last(piece.when))
        for inner in _inside(piece):
            ends |= _edits(inner, clock)
    return ends


def _turns(text: Text) -> int:
    """Return after how many calls alternations say the same again; 1: there is none."""
    turns = 1
    for piece in text.pieces:
        if isinstance(piece, Alternation):
            turns = math.lcm(turns, len(piece.options))
        for inner in _inside(piece):
            turns = math.lcm(turns, _turns(inner))
    return turns


def _inside(piece: str | Edit | Alternation) -> tuple[Text, ...]:
    """Return the texts inside a piece."""
    if isinstance(piece, str):
        return ()
    return piece.options if isinstance(piece, Alternation) else (piece.before, piece.after)


def _at(text: Text, call: int, clock: Clock) -> str:
    """Return the wording of a text in a call, counted from 1."""
    return "".join(
        piece if isinstance(piece, str) else _at(_chosen(piece, call, clock), call, clock) for piece in text.pieces
    )


def _chosen(piece: Edit | Alternation, call: int, clock: Clock) -> Text:
    if isinstance(piece, Edit):
        return piece.before if call <= clock.last(piece.when) else piece.after
    return piece.options[(call - 1) % len(piece.options)]


@lru_cache(_REMEMBERED)
def _parsed(text: str) -> Text:
    """Return `text` as parsed by the grammar, or as plain text if it cannot be parsed, or holds no edit for sure."""
    if not may_change(text):
        return Text((text,))
    try:
        return cast("Text", _parser().parse(text))
    except LarkError:
        return Text((text,))


class _Reader(Transformer[Token, Text]):
    """Each rule of the grammar as what it means; a rule's children hold its signs, too."""

    def prompt(self, children: Sequence[Child]) -> Text:
        return _joined(children, is_sound=True)

    def text(self, children: Sequence[Child]) -> Text:
        return _joined(children, is_sound=all(map(_is_sound, children)))

    emphasis = text

    def stray(self, children: Sequence[Child]) -> Text:
        return _joined(children, is_sound=False)

    def edit(self, children: Sequence[Child]) -> Text | Edit:
        if not all(map(_is_sound, children)):
            return self.stray(children)
        *before, after = _texts(children)
        when = str(children[-2]).removeprefix(":").strip()
        return Edit(before[0] if before else Text(()), after, when)

    def alternation(self, children: Sequence[Child]) -> Text | Alternation:
        if not all(map(_is_sound, children)):
            return self.stray(children)
        options = _texts(children)
        return Alternation(options) if any(option != options[0] for option in options) else options[0]


def _texts(children: Iterable[Child]) -> tuple[Text, ...]:
    return tuple(child for child in children if isinstance(child, Text))


def _is_sound(child: Child) -> bool:
    if isinstance(child, Token):
        return child.type != STRAY
    return not isinstance(child, Text) or child.is_sound


def _joined(children: Iterable[Child], *, is_sound: bool) -> Text:
    """Return children as one text; what stays on all the way is one piece."""
    pieces = chain.from_iterable(child.pieces if isinstance(child, Text) else [child] for child in children)
    joined: list[str | Edit | Alternation] = []
    for is_plain, group in groupby(pieces, key=lambda piece: isinstance(piece, str)):
        run = list(group)
        joined += ["".join(map(str, run))] if is_plain else run
    return Text(tuple(joined), is_sound)


class _Partners(PostLex):
    """Makes every bracket without a partner STRAY: what encloses one is text, and so is what encloses that."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        tokens = list(stream)
        paired = _paired(tokens)
        for index, token in enumerate(tokens):
            is_stray = index not in paired and token in _SIGNS
            yield token.update(type=STRAY) if is_stray else token


def _paired(tokens: Sequence[Token]) -> set[int]:
    """Return the places of brackets that are closed in the order in which they were opened."""
    paired: set[int] = set()
    opened: list[int] = []
    for index, token in enumerate(tokens):
        if token in _OPENING.values():
            opened.append(index)
        elif token in _OPENING and opened and tokens[opened[-1]] == _OPENING[token]:
            paired |= {index, opened.pop()}
        elif token in _OPENING:
            opened.clear()  # all that is open encloses this one
        if len(opened) > DEEPEST:
            raise LarkError(f"more than {DEEPEST} brackets are open at once")
    return paired


@cache
def _parser() -> Lark:
    """The parser, in time that is linear in a text's length."""
    return Lark(
        GRAMMAR,
        start="prompt",
        parser="lalr",
        lexer="basic",
        postlex=_Partners(),
        transformer=_Reader(),
        keep_all_tokens=True,
    )
