"""Attention: brackets that make words weigh more or less.

`(x)` times 1.1, `[x]` divided by 1.1, `(x:1.3)` times 1.3; nested ones multiply. A backslash makes a bracket plain.
A bracket that is never closed reaches to the end of the text. One that was never opened is text, and so is a weight
that is not a number. `BREAK` ends a chunk, but only at weight 1: inside a weight it is a word, whose own weight is
negative. That is an accident of the program that most prompts were written for; their pictures have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from shared.params.fields import Emphasis

BREAK: Final = "BREAK"
_FACTORS: Final = {"(": 1.1, "[": 1 / 1.1}
_OPENING: Final = {")": "(", "]": "["}
_LARGEST: Final = 1e6  # of a weight
_SIGN: Final = re.compile(
    r"""
      \\(?P<escaped>[()\[\]\\])
    | \\                                                            # alone: dropped
    | :\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*(?P<weighed>\))
    | (?P<opening>[(\[])
    | (?P<closing>[)\]])
    | (?P<plain>[^\\()\[\]:]+|:)
    """,
    re.VERBOSE,
)
_BREAK: Final = re.compile(r"\bBREAK\b")


class Fragment(NamedTuple):
    """A piece of text that weighs the same all over, or the end of a chunk: BREAK at a weight of -1."""

    text: str
    weight: float = 1.0

    @property
    def is_break(self) -> bool:
        return self == (BREAK, -1.0)


def weighed(text: str, emphasis: Emphasis = "Original") -> list[list[Fragment]]:
    """Return the fragments of `text` between one BREAK and the next; at least one section, which may be empty.

    Without emphasis (`None`) brackets and BREAK are words like all others; with `Ignore` all words weigh the same.
    """
    if emphasis == "None":
        return [[Fragment(text)]]
    sections: list[list[Fragment]] = [[]]
    for fragment in fragments(text):
        if fragment.is_break:
            sections.append([])
        elif fragment.text:
            sections[-1].append(Fragment(fragment.text) if emphasis == "Ignore" else fragment)
    return sections


def fragments(text: str) -> tuple[Fragment, ...]:
    """Return `text` as fragments, neighbours of the same weight as one; in time that is linear in its length."""
    merged = tuple(
        Fragment("".join(piece.text for piece in pieces), weight)
        for weight, pieces in groupby(_pieces(text), key=lambda piece: piece.weight)
    )
    return merged or (Fragment(""),)


def _pieces(text: str) -> Iterator[Fragment]:
    signs = list(_SIGN.finditer(text))
    factors = _factors(signs)
    products = {opening: [1.0] for opening in _FACTORS}  # round and square brackets may cross: each has its own
    for index, sign in enumerate(signs):
        closing = sign["closing"] or sign["weighed"]
        if sign["opening"]:
            around = products[sign["opening"]]
            around.append(bounded(around[-1] * factors[index]))
        elif closing and len(products[_OPENING[closing]]) > 1:
            products[_OPENING[closing]].pop()
        else:
            weight = bounded(products["("][-1] * products["["][-1])
            yield from _split(sign["plain"], weight) if sign["plain"] else [Fragment(_literal(sign), weight)]


def _factors(signs: Sequence[re.Match[str]]) -> dict[int, float]:
    """Return the factor of each opening bracket by its place: as its closing one says, else its kind's own."""
    factors: dict[int, float] = {}
    unclosed: dict[str, list[int]] = {opening: [] for opening in _FACTORS}
    for index, sign in enumerate(signs):
        closing = sign["closing"] or sign["weighed"]
        if opening := sign["opening"]:
            factors[index] = _FACTORS[opening]
            unclosed[opening].append(index)
        elif closing and unclosed[_OPENING[closing]]:
            opened = unclosed[_OPENING[closing]].pop()
            if sign["weight"]:
                factors[opened] = float(sign["weight"])
    return factors


def _split(text: str, weight: float) -> Iterator[Fragment]:
    first, *rest = _BREAK.split(text)
    yield Fragment(first.rstrip() if rest else first, weight)
    for number, part in enumerate(rest, start=1):
        yield Fragment(BREAK, -weight)
        yield Fragment(part.lstrip() if number == len(rest) else part.strip(), weight)


def _literal(sign: re.Match[str]) -> str:
    """Return the text of a sign that has no effect: an escaped character, or a bracket that closes nothing."""
    if sign["escaped"]:
        return sign["escaped"]
    return "" if sign[0] == "\\" else sign[0]


def bounded(weight: float) -> float:
    """Return a weight within bounds, however many digits or brackets express it."""
    return max(-_LARGEST, min(_LARGEST, weight))
