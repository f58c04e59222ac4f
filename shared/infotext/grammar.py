"""The form of the `parameters` text, whatever it says: prompts, then named values.

prompt, as many lines as it has
Negative prompt: as many lines as it has        (only if there is one)
Steps: 20, Sampler: Euler a, …                  (values that hold a comma, colon or line break are quoted)

Texts in circulation differ: values go on over several lines, quoted ones hold line breaks, lists stand in JSON, other
lines follow, or all stands in one line. Reading takes linear time whatever the text holds: each search goes on where
the one before it ended.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

from shared.infotext.keys import canonical, is_known

NEGATIVE: Final = "Negative prompt:"
_FEWEST: Final = 3  # named values that make a line one of parameters, and not the end of a prompt
_NOTHING: Final = re.compile(
    r"(?:none|null|undefined|created with (?:the )?gimp|creator: gd-jpeg.*|lead technologies.*|"
    r"(?:file written by )?adobe photoshop.*)?",
    re.IGNORECASE,
)
"""Comments of programs that say nothing about how a picture was made."""
_NAME: Final = re.compile(r"\w[\w \-/]+")
_BEGINNING: Final = re.compile(r"[ \t]*(\w[\w \-/]+):")
_STEPS: Final = re.compile(r"[ \t]*Steps:[ \t]*\d+[ \t]*(?:,|$)", re.MULTILINE)
_STEPS_WITHIN: Final = re.compile(r"(?:^|(?<=\s)|(?<=[.,;]))Steps:[ \t]*\d+[ \t]*,")
_SURE: Final = re.compile(r"\b(?:steps|seed|size|cfg scale)[ \t]*:[ \t]*\d", re.IGNORECASE)
_NEGATIVE: Final = re.compile(re.escape(NEGATIVE), re.IGNORECASE)
_OWN: Final = re.compile(r"Steps: \d+, .*, Version: stepfarm [^,]*")
"""The farm's own line of values, which no value breaks."""
_LAST_TRIES: Final = 3  # places with which the values may begin
_QUOTED: Final = re.compile(r'"((?:\\.|[^\\"])*)"[ \t]*(?=[,\n]|\Z)', re.DOTALL)
_QUOTE: Final = re.compile(r'(?<!\\)"')
_PLAIN: Final = re.compile(r"[^,\n]*")
_BLANKS: Final = re.compile(r"[ \t]*")
_SIGN: Final = re.compile(r'"(?:\\.|[^\\"])*(?:"|\Z)|[\[\]{}]', re.DOTALL)  # of JSON
_FURTHER: Final = re.compile(r",\s*(\w[\w \-/]+):")


class Parts(NamedTuple):
    """The parts of a text."""

    prompt: str
    negative_prompt: str
    values: dict[str, str]  # by name, in their order
    rest: str = ""  # lines after the values, which hold no values


def joined(parts: Parts) -> str:
    """Return the text of `parts`."""
    negative = f"{NEGATIVE} {parts.negative_prompt}" if parts.negative_prompt else ""
    line = ", ".join(f"{name}: {quoted(value)}" for name, value in parts.values.items())
    return "\n".join(part for part in (parts.prompt, negative, line) if part)


def taken_apart(text: str) -> Parts:
    """Return the parts of any text. One without values is a prompt; lines lose the blanks at their ends, as in every
    program that reads these texts.
    """
    plain = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip()
    lines = plain.split("\n")
    start = _first_of_values(lines)
    if start is not None:
        return Parts(*_prompts(lines[:start]), *fields("\n".join(lines[start:])))
    if (place := _values_within(plain)) is not None:
        return Parts(*_prompts_within(plain[:place]), *fields(plain[place:]))
    return Parts("", "", {}) if _NOTHING.fullmatch(plain) else Parts(*_prompts(lines), {})


def _first_of_values(lines: list[str]) -> int | None:
    """Return the line with which the values begin: the last that begins with steps, else the last ones of values."""
    if _OWN.fullmatch(lines[-1]):
        return len(lines) - 1
    steps = [at for at, line in enumerate(lines) if _STEPS.match(line)][-_LAST_TRIES:]
    if steps:
        outer = (at for at in steps[:-1] if _is_quoted(lines, at, steps[-1]))
        return next(outer, steps[-1])
    last = len(lines) - 1
    start = next((at for at in range(last, -1, -1) if _is_of_values(lines, at)), None)
    while start and _is_of_values(lines, start - 1):
        start -= 1
    return start


def _is_quoted(lines: list[str], start: int, at: int) -> bool:
    """Tell whether a line stands in a quotation that begins among values further up."""
    between = "\n".join(lines[start:at])
    return len(_QUOTE.findall(between)) % 2 == 1 and _is_of_values(lines, start)


def _is_of_values(lines: list[str], at: int) -> bool:
    """Tell whether a line holds values, and not the end of a prompt that happens to hold a colon."""
    line, is_last = lines[at], at == len(lines) - 1
    beginning = _BEGINNING.match(line)
    if not beginning or not (is_last or is_known(beginning[1])) or _NEGATIVE.search(line):
        return False
    within = _STEPS_WITHIN.search(line)
    before = line[: within.start()].rstrip() if within else ""
    if before and not before.endswith(","):
        return False  # a prompt stands before the values
    values, rest = fields(line)
    known = sum(map(is_known, values))
    if is_known(beginning[1]):
        return known >= _FEWEST or (known == len(values) and not rest and bool(_SURE.search(line)))
    return len(values) >= _FEWEST and known > 1


def _values_within(text: str) -> int | None:
    """Return the place in a line from which on it is values, behind the prompts."""
    places = [match.start() for match in _STEPS_WITHIN.finditer(text)][-_LAST_TRIES:]
    return next((at for at in reversed(places) if sum(map(is_known, fields(text[at:])[0])) >= _FEWEST), None)


def _prompts(lines: list[str]) -> tuple[str, str]:
    """Return prompt and negative prompt: the first line that begins with its name begins the negative one."""
    stripped = [line.strip() for line in lines]
    start = next((place for place, line in enumerate(stripped) if _NEGATIVE.match(line)), len(stripped))
    negative = [
        _NEGATIVE.sub("", line, count=1).strip() if _NEGATIVE.match(line) else line for line in stripped[start:]
    ]
    return "\n".join(stripped[:start]).strip(), "\n".join(negative).strip()


def _prompts_within(text: str) -> tuple[str, str]:
    """Return prompt and negative prompt of a text that goes on with its values in the same line."""
    lines = text.split("\n")
    if any(_NEGATIVE.match(line.strip()) for line in lines):
        return _prompts(lines)
    prompt, *negative = _NEGATIVE.split(text, maxsplit=1)
    return prompt.strip(" ,\n"), "".join(negative).strip(" ,\n")


def fields(text: str) -> tuple[dict[str, str], str]:
    """Return the named values of one or more lines, and the rest, line by line.

    Of a name that comes twice the last one counts. A line goes on with values if the one before it ends with a comma or
    breaks off, or if it begins with a known name itself; with any other line the values end.
    """
    found: dict[str, str] = {}
    others: list[str] = []
    place = 0
    is_json_whole = True  # else none that begins later has an end either
    while (colon := text.find(":", place)) >= 0:
        *between, name = re.split(r"[,\n]", text[place:colon])
        others += between
        if not _NAME.fullmatch(name.strip()):
            others.append(name)
            place = colon + 1
            continue
        value, place, is_json_whole = _value(text, colon + 1, is_json_whole)
        found |= {} if value is None else {canonical(name.strip()): value}
        if text[place : place + 1] == "\n" and not _is_field(text, place + 1):
            break
        place += 1
    return found, "\n".join(part.strip() for part in [*others, text[place:]] if part.strip())


def _value(text: str, place: int, is_json_whole: bool) -> tuple[str | None, int, bool]:  # noqa: FBT001 - a state, handed on
    """Return the value that begins at `place`, if any, where it ends, and whether JSON can still be looked for."""
    place = _end(_BLANKS, text, place)
    if quotation := _QUOTED.match(text, place):
        return _unquoted(quotation), quotation.end(), is_json_whole
    if is_json_whole and text[place : place + 1] in {"[", "{"}:
        end = _end_of_json(text, place)
        is_json_whole = end is not None
        if end is not None and text[end : end + 1] in {"", ",", "\n"}:
            return text[place:end], end, is_json_whole
    end = _end(_PLAIN, text, place)
    while text[end : end + 1] == "\n" and _is_broken_off(text, end + 1, is_empty=not text[place:end].strip()):
        end = _end(_PLAIN, text, end + 1)
    return " ".join(text[place:end].split("\n")).strip() or None, end, is_json_whole


def _end_of_json(text: str, place: int) -> int | None:
    """Return where the list or object that begins at `place` ends, and the blanks behind it."""
    depth = 0
    for sign in _SIGN.finditer(text, place):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(sign[0], 0)
        if depth == 0:
            return _end(_BLANKS, text, sign.end())
    return None


def _is_field(text: str, place: int) -> bool:
    """Tell whether the line at `place` begins with a known name."""
    beginning = _BEGINNING.match(text, place)
    return beginning is not None and is_known(beginning[1])


def _is_broken_off(text: str, place: int, *, is_empty: bool) -> bool:
    """Tell whether the line at `place` goes on with the value before it, which may have had none of its own yet.

    It has no name at its beginning, and behind a value that has begun there follow others.
    """
    if _BEGINNING.match(text, place):
        return False
    end = text.find("\n", place)
    further = _FURTHER.finditer(text, place, end if end >= 0 else len(text))
    return is_empty or any(is_known(one[1]) for one in further)


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    """Return where what `pattern` matches from `place` on ends."""
    matched = pattern.match(text, place)
    return matched.end() if matched else place


def _unquoted(quotation: re.Match[str]) -> str:
    """Return the text of a JSON string; of one with broken escapes what stands between its quotes."""
    try:
        return str(json.loads(f'"{quotation[1]}"', strict=False))
    except ValueError:
        return quotation[1]


def quoted(value: str) -> str:
    """Return a value as it stands in the line: as a JSON string where it would be misread otherwise."""
    needs_quotes = not value or any(mark in value for mark in ',:\n\r"') or value != value.strip() or value[0] in "[{"
    return json.dumps(value, ensure_ascii=False) if needs_quotes else value
