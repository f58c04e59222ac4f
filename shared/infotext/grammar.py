"""The form of the `parameters` text, whatever it says: prompts, then one line of named values.

prompt, as many lines as it has
Negative prompt: as many lines as it has        (only if there is one)
Steps: 20, Sampler: Euler a, …                  (one line; values that hold a comma, colon or line break are quoted)

Reading takes linear time whatever the text holds: each search goes on where the one before it ended.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

NEGATIVE: Final = "Negative prompt:"
_FEWEST: Final = 3  # named values that make a line one of parameters, and not the end of a prompt
_NAME: Final = re.compile(r"\w[\w \-/]+")
_QUOTED: Final = re.compile(r'"((?:\\.|[^\\"])*)"\s*(?=,|$)')
_PLAIN: Final = re.compile(r"[^,]*")
_BLANKS: Final = re.compile(r"\s*")


class Parts(NamedTuple):
    """What a text consists of."""

    prompt: str
    negative_prompt: str
    values: dict[str, str]  # by name, in their order


def joined(parts: Parts) -> str:
    """Return the text of `parts`."""
    negative = f"{NEGATIVE} {parts.negative_prompt}" if parts.negative_prompt else ""
    line = ", ".join(f"{name}: {quoted(value)}" for name, value in parts.values.items())
    return "\n".join(part for part in (parts.prompt, negative, line) if part)


def taken_apart(text: str) -> Parts:
    """Return the parts of any text. One without a line of parameters is a prompt; lines lose the blanks at their ends,
    as in every program that reads these texts.
    """
    lines = text.strip().split("\n")
    values = fields(lines[-1])
    if len(values) < _FEWEST:
        return Parts(*_prompts(lines), {})
    return Parts(*_prompts(lines[:-1]), values)


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Return prompt and negative prompt: the first line that begins with its name begins the negative one."""
    stripped = [line.strip() for line in lines]
    start = next((place for place, line in enumerate(stripped) if line.startswith(NEGATIVE)), len(stripped))
    negative = [line.removeprefix(NEGATIVE).strip() for line in stripped[start:]]
    return "\n".join(stripped[:start]).strip(), "\n".join(negative).strip()


def fields(line: str) -> dict[str, str]:
    """Return the named values of a line; of a name that comes twice the last one. What is no field is passed over."""
    found: dict[str, str] = {}
    place = 0
    while (colon := line.find(":", place)) >= 0:
        name = line[place:colon].rpartition(",")[2].strip()
        place = colon + 1
        if _NAME.fullmatch(name):
            value, place = _value(line, place)
            found |= {} if value is None else {name: value}
    return found


def _value(line: str, place: int) -> tuple[str | None, int]:
    """Return the value that begins at `place`, if there is one, and where what follows it begins."""
    place = _end(_BLANKS, line, place)
    if quotation := _QUOTED.match(line, place):
        return _unquoted(quotation), quotation.end() + 1
    end = _end(_PLAIN, line, place)
    return line[place:end].strip() or None, end + 1


def _end(pattern: re.Pattern[str], line: str, place: int) -> int:
    """Return where what `pattern` matches from `place` on ends."""
    matched = pattern.match(line, place)
    return matched.end() if matched else place


def _unquoted(quotation: re.Match[str]) -> str:
    """Return the text of a JSON string; of one with broken escapes what stands between its quotes."""
    try:
        return str(json.loads(f'"{quotation[1]}"', strict=False))
    except ValueError:
        return quotation[1]


def quoted(value: str) -> str:
    """Return a value as it stands in the line: as a JSON string where it would be misread otherwise."""
    needs_quotes = not value or any(mark in value for mark in ',:\n"') or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if needs_quotes else value
