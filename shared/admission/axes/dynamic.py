"""Dynamic prompts: `{a|b}` is one of its options, `{2$$a|b|c}` two of them, `__colour__` a line of a wildcard file.

Everything nests, in files too. `{3::a|b}` prefers `a` where texts are drawn at random, `{2$$ and $$a|b|c}` says what
stands between two options. A backslash makes a brace or a bar plain. What can come of a prompt is counted before any
of it is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from math import prod
from random import Random
from typing import Final, NamedTuple

from shared.admission.axes.notation import BadValues
from shared.admission.axes.wildcards import Wildcards

COUNTED: Final = 10**12  # more texts than that are not told apart
_DEEPEST: Final = 20  # braces and files within each other
_MOST_OPTIONS: Final = 200  # of a choice of several
_MOST_CHOICES: Final = 200  # of a prompt, without those in its files
_MOST_PIECES: Final = 50_000  # of a prompt with all its files
_SIGN: Final = re.compile(r"\\(?P<plain>[{}|])|(?P<sign>[{}|])|__(?P<name>[^\W_][^\n{}|]{0,99}?|[./][^\n{}|]{0,99}?)__")
_SEVERAL: Final = re.compile(r"\s*([0-9]{1,3})(?:-([0-9]{1,3}))?\$\$(?:([^$]{0,20})\$\$)?")
_WEIGHT: Final = re.compile(r"\s*([0-9]{1,4}(?:\.[0-9]{1,4})?)::")
_BETWEEN: Final = ", "
_TRIES: Final = 2  # for each text that is drawn, so that most are others than those before
FORMS: Final = "a prompt with a choice such as {red|blue}, or a wildcard such as __colour__"


@dataclass(frozen=True)
class Choice:
    """Options, of which `least` to `most` are taken."""

    options: tuple[Template, ...]
    weights: tuple[float, ...] = ()  # empty: all alike
    least: int = 1
    most: int = 1
    between: str = _BETWEEN

    @property
    def count(self) -> int:
        """How many texts it can become."""
        ways = [1] + [0] * self.most  # of taking so many of the options before
        for option in self.options:
            for taken in range(self.most, 0, -1):
                ways[taken] = min(ways[taken] + ways[taken - 1] * option.count, COUNTED)
        return min(sum(ways[self.least :]), COUNTED)

    def texts(self) -> Iterator[str]:
        """Yield all of them, in the order of the options."""
        for taken in range(self.least, self.most + 1):
            for some in combinations(self.options, taken):
                yield from map(self.between.join, product(*([*option.texts()] for option in some)))

    def drawn(self, random: Random) -> str:
        """Return one of them."""
        if not self.weights and self.most == 1:
            return random.choice(self.options).drawn(random).text
        left, taken = list(range(len(self.options))), list[int]()
        for _ in range(random.randint(self.least, self.most)):
            weights = [self.weights[one] for one in left] if self.weights else []
            taken.append(left.pop(random.choices(range(len(left)), weights if any(weights) else None)[0]))
        return self.between.join(self.options[one].drawn(random).text for one in sorted(taken))


class Expanded(NamedTuple):
    """A text, and what was chosen for it."""

    text: str
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """A prompt: texts and choices in turn."""

    pieces: tuple[str | Choice, ...]
    count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", min(prod(one.count for one in self.choices), COUNTED))

    @property
    def choices(self) -> list[Choice]:
        """Its choices, in order."""
        return [one for one in self.pieces if isinstance(one, Choice)]

    def expanded(self) -> Iterator[Expanded]:
        """Yield all that can come of it; the last choice varies fastest."""
        for chosen in product(*([*one.texts()] for one in self.choices)):
            yield self._with(chosen)

    def texts(self) -> Iterator[str]:
        """Yield the texts alone."""
        return (one.text for one in self.expanded())

    def drawn(self, random: Random) -> Expanded:
        """Return one of them, drawn at random."""
        return self._with([one.drawn(random) for one in self.choices])

    def _with(self, chosen: Sequence[str]) -> Expanded:
        texts = iter(chosen)
        return Expanded("".join(one if isinstance(one, str) else next(texts) for one in self.pieces), tuple(chosen))


def several(template: Template, count: int, random: Random) -> list[Expanded]:
    """Return so many texts, drawn at random, or all if there are no more. Few of many may be the same."""
    if template.count <= count:
        return [*template.expanded()]
    found = dict.fromkeys(template.drawn(random) for _ in range(count))
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        found.setdefault(template.drawn(random))
    return [*found]


def read(prompt: str, wildcards: Wildcards) -> Template:
    """Return what a prompt can become. Raises BadValues, Unavailable."""
    if prompt.count("{") + prompt.count("__") // 2 > _MOST_CHOICES:
        raise BadValues("has far too many choices", f"at most {_MOST_CHOICES}")
    return _Reader(wildcards).template(prompt)


@dataclass
class _Reader:
    """Reads one prompt, each of its files once."""

    wildcards: Wildcards
    files: dict[str, Choice] = field(default_factory=dict)
    around: list[str] = field(default_factory=list)  # the files that are being read
    pieces: int = 0

    def template(self, text: str) -> Template:
        """Return a text as a template."""
        opened: list[list[list[str | Choice]]] = [[[]]]  # choices, their options, the pieces of these
        place = 0
        for found in _SIGN.finditer(text):
            self._put(opened, text[place : found.start()])
            place = found.end()
            if found["plain"]:
                self._put(opened, found["plain"])
            elif found["name"]:
                self._put(opened, self._file(found["name"]))
            elif found["sign"] == "{":
                opened.append([[]])
            elif found["sign"] == "|":
                # Outside of braces it is text: alternation and the prompt matrix have it.
                self._put(opened, "|") if len(opened) == 1 else opened[-1].append([])
            elif len(opened) == 1:
                raise BadValues(
                    "closes a brace } that was never opened", "braces in pairs, or one with a backslash before it"
                )
            else:
                self._put(opened[:-1], _choice(opened.pop()))
            if len(opened) + len(self.around) > _DEEPEST:
                raise BadValues(f"has more than {_DEEPEST} choices within each other", f"at most {_DEEPEST}")
        if len(opened) > 1:
            raise BadValues(
                "opens a brace { that is never closed", "braces in pairs, or one with a backslash before it"
            )
        self._put(opened, text[place:])
        return Template(tuple(opened[0][0]))

    def _put(self, opened: list[list[list[str | Choice]]], piece: str | Choice) -> None:
        if piece == "":
            return
        self.pieces += 1
        if self.pieces > _MOST_PIECES:
            raise BadValues("has far too many choices, with all its wildcards", "fewer of them, or shorter files")
        opened[-1][-1].append(piece)

    def _file(self, name: str) -> Choice:
        if name in self.around:
            way = " → ".join(f"__{one}__" for one in (*self.around[self.around.index(name) :], name))
            raise BadValues(f"names a wildcard that includes itself: {way}", "wildcards that end in texts")
        if name not in self.files:
            self.around.append(name)
            options = tuple(self.template(line) for line in self.wildcards.lines(name))
            self.around.pop()
            self.files[name] = Choice(options)
        return self.files[name]


def _choice(options: Sequence[Sequence[str | Choice]]) -> Choice:
    """Return the choice between options as they were read. Raises BadValues."""
    first = options[0][0] if options[0] else ""
    said = _SEVERAL.match(first) if isinstance(first, str) else None
    least = int(said[1]) if said else 1
    most = int(said[2] or said[1]) if said else 1
    if not least <= most <= len(options) or (said and len(options) > _MOST_OPTIONS):
        message = f"asks for {said[0][:12] if said else most} of {len(options)} options"
        raise BadValues(message, f"as many as there are: at most {min(len(options), _MOST_OPTIONS)}")
    rest = [[first[said.end() :], *options[0][1:]], *options[1:]] if said and isinstance(first, str) else options
    weighed = [_weighed(option) for option in rest]
    between = said[3] if said and said[3] is not None else _BETWEEN
    weights = tuple(weight for weight, _ in weighed) if any(weight != 1 for weight, _ in weighed) else ()
    return Choice(tuple(option for _, option in weighed), weights, least, most, between)


def _weighed(option: Sequence[str | Choice]) -> tuple[float, Template]:
    """Return the weight in front of an option, by default 1, and the option."""
    first = option[0] if option else ""
    if isinstance(first, str) and (said := _WEIGHT.match(first)):
        return float(said[1]), Template(tuple(filter(None, (first[said.end() :], *option[1:]))))
    return 1.0, Template(tuple(filter(None, option)))
