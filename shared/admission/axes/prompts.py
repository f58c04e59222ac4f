"""Axes of the prompt: words replaced, words in another order, parts with and without, whole prompts from lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from math import factorial
from typing import Final

from shared.admission.axes.adapters import appended
from shared.admission.axes.names import named
from shared.admission.axes.notation import MOST_VALUES, BadValues, too_many
from shared.admission.axes.values import Reader, Scalar, Value, given_items, text_of, titled
from shared.params.codecs import SIZE
from shared.params.render import RenderParams
from shared.settings import Limits
from shared.wording import LONGEST

_OPTION: Final = re.compile(r"(?:^|(?<=\s))--(?=[A-Za-z])")
_MOST_OPTIONS: Final = 2000  # characters of a line behind its prompt
_OPENING: Final = {")": "(", "]": "[", "}": "{", ">": "<"}
_LINE: Final = "a prompt with options as farm render has them, such as: a lake --steps 30 --cfg 7"


def replaced(values: object, prompts: Sequence[str], limits: Limits) -> list[Value]:
    """Return the values of `prompt_replace`: the first one is searched for in every prompt. Raises BadValues.

    `prompts` are those of all cells before it.
    """
    sought, *others = [text_of(one) for one in given_items(values, limits)]
    if not sought:
        raise BadValues("is empty", "words of the prompt to search for", place=0)
    if not any(sought in prompt for prompt in prompts):
        raise BadValues(f"searches for {sought[:LONGEST]!r}, which is not in the prompt", "words of the prompt", 0)
    if not others:
        raise BadValues("has nothing to take the place of its first value", "the words to search for, then others")
    for place, text in enumerate(others, 1):
        longest = max(len(prompt) + prompt.count(sought) * (len(text) - len(sought)) for prompt in prompts)
        if longest > limits.max_prompt_chars:
            message = f"makes a prompt of {longest:,} characters"
            raise BadValues(message, f"at most {limits.max_prompt_chars:,} characters", place)
    edit = partial(_replaced, limits.max_prompt_chars, sought)
    return [Value(titled(text) or f"without: {titled(sought)}", edit=partial(edit, text)) for text in (sought, *others)]


def _replaced(most: int, sought: str, text: str, _: str, prompt: str) -> str:
    """Return a prompt with other words. Raises BadValues if that would be too long, as after another such axis."""
    longest = len(prompt) + prompt.count(sought) * (len(text) - len(sought))
    if longest > most:
        raise BadValues(f"make a prompt of {longest:,} characters", f"at most {most:,} characters")
    return prompt.replace(sought, text)


def ordered(values: object, prompts: Sequence[str], limits: Limits) -> list[Value]:
    """Return the values of `prompt_order`: the words in every order, at their places. Raises BadValues."""
    words = [text_of(one) for one in given_items(values, limits)]
    if len(words) < 2 or len({*words}) < len(words) or not all(words):
        raise BadValues("needs two different words at least", "words of the prompt, such as desert, sunset")
    if len(words) > 20 or (count := factorial(len(words))) > MOST_VALUES:
        raise BadValues(f"has {len(words)} words, which is too many orders", "two to five words")
    for place, word in enumerate(words):
        if not any(word in prompt for prompt in prompts):
            raise BadValues(f"names {word[:LONGEST]!r}, which is not in the prompt", "words of the prompt", place)
    del count
    return [Value(titled(", ".join(some)), edit=partial(_ordered, tuple(words), some)) for some in permutations(words)]


def _ordered(words: tuple[str, ...], order: tuple[str, ...], name: str, prompt: str) -> str:
    """Return a prompt with the words in this order at the places where they stand first; without all, as it is."""
    if name.endswith("negative_prompt"):
        return prompt
    places = sorted((prompt.find(word), word) for word in words)
    ends = [place + len(word) for place, word in places]
    if places[0][0] < 0 or any(place < end for end, (place, _) in zip(ends, places[1:], strict=False)):
        return prompt
    parts, end = [], 0
    for (place, word), other in zip(places, order, strict=True):
        parts += [prompt[end:place], other]
        end = place + len(word)
    return "".join([*parts, prompt[end:]])


def matrix(prompt: str) -> list[Value]:
    """Return the values of `prompt_matrix`: `a|b|c` is a with and without b and c. Raises BadValues."""
    first, *parts = (part.strip() for part in _parts(prompt))
    if not parts:
        raise BadValues("needs a prompt with parts behind a bar", "a prompt such as a desert|sun|clouds")
    if 2 ** min(len(parts), 20) > MOST_VALUES:
        raise BadValues(f"has {len(parts)} parts behind bars", f"at most {MOST_VALUES.bit_length() - 1} parts")
    found = []
    for number in range(2 ** len(parts)):
        used = [part for place, part in enumerate(parts) if number >> place & 1]
        title = titled(", ".join(used)) if used else titled(f"without: {', '.join(parts)}")
        found.append(Value(title, {"prompt": ", ".join(filter(None, [first, *used]))}))
    return found


def _parts(prompt: str) -> list[str]:
    """Return what stands between the bars of a prompt that stand in no brackets."""
    parts, opened, begin = [], list[str](), 0
    for place, sign in enumerate(prompt):
        if sign in _OPENING.values():
            opened.append(sign)
        elif sign in _OPENING and opened and opened[-1] == _OPENING[sign]:
            opened.pop()
        elif sign == "|" and not {"[", "{"} & {*opened[-20:]}:
            parts.append(prompt[begin:place])
            begin = place + 1
    return [*parts, prompt[begin:]]


@dataclass(frozen=True)
class Lines:
    """Reads lines with a prompt and options behind it, as jobs with these parameters can have them."""

    base: RenderParams
    limits: Limits

    def all(self, values: object) -> list[Value]:
        """Return the values of `prompts`. Raises BadValues."""
        if isinstance(values, str):
            lines = values.split("\n", 20 * MOST_VALUES)
            values = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
            if len(values) > MOST_VALUES:
                raise too_many(len(values))
        lines = [text_of(one) for one in given_items(values, self.limits)]
        return [self._one(line, place) for place, line in enumerate(lines)]

    def _one(self, line: str, place: int) -> Value:
        option = _OPTION.search(line)
        prompt = line[: option.start()].strip() if option else line.strip()
        changes: dict[str, Scalar] = {"prompt": prompt}
        try:
            for name, text in _options(line[option.start() :]) if option else ():
                changes |= self._option(name, text, changes)
        except BadValues as bad:
            raise BadValues(str(bad), bad.accepted, place) from None
        return Value(titled(prompt or line) or "empty", changes)

    def _option(self, name: str, text: str | None, changes: dict[str, Scalar]) -> dict[str, Scalar]:
        """Return what an option changes. Raises BadValues."""
        if name == "lora" and text:
            return {"prompt": appended(str(changes["prompt"]), text)}
        found = named({"negative": "negative_prompt"}.get(name, name), self.base)
        if found.path == "size" and text:
            return dict(size(text, self.base, self.limits).changes)
        if found.parameter is None:
            raise BadValues(f"has the option --{name[:LONGEST]}, which stands in no line", _LINE)
        if text is None and found.parameter.kind != "boolean":
            raise BadValues(f"has no value behind --{name[:LONGEST]}", _LINE)
        return dict(Reader(found.path, found.parameter, self.base, self.limits).one(text or "true").changes)


def _options(text: str) -> list[tuple[str, str | None]]:
    """Return the options of a line with their values; None: without one. Raises BadValues."""
    if len(text) > _MOST_OPTIONS:
        raise BadValues("is too long behind its prompt", f"at most {_MOST_OPTIONS:,} characters of options")
    try:
        words = shlex.split(text)
    except ValueError:
        raise BadValues("opens a quote that it does not close", _LINE) from None
    found: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name[:1].isalpha():
            found.append((name, value if equals else None))
        elif found and found[-1][1] is None:
            found[-1] = (found[-1][0], word)
        else:
            raise BadValues(f"has {word[:LONGEST]!r} behind an option", f"{_LINE}; texts with blanks stand in quotes")
    return found


def size(text: str, base: RenderParams, limits: Limits) -> Value:
    """Return the value of `size` that a text means. Raises BadValues."""
    try:
        width, height = SIZE.read(text.strip())
    except ValueError:
        raise BadValues(f"holds {text[:LONGEST]!r}, which is not a size", "sizes such as 512x768") from None
    sides = (named(name, base) for name in ("width", "height"))
    read = [
        Reader(side.path, side.parameter, base, limits).one(str(given))
        for side, given in zip(sides, (width, height), strict=True)
        if side.parameter
    ]
    return Value(f"{width} × {height}", {name: one for value in read for name, one in value.changes.items()})
