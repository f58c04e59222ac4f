"""Messages about values: what is wrong and what would be accepted, in the farm's words.

Pydantic reports an error by its type and context; its own sentences are not shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

LONGEST: Final = 60  # characters of what was given that a message repeats

_WORDS: Final = {
    "missing": ("is missing", "a value"),
    "extra_forbidden": ("is not part of this request", "only what /openapi.json names"),
    "none_required": ("must be null, not {given}", "null"),
    "string_type": ("must be text, not {given}", "text"),
    "string_sub_type": ("must be text, not {given}", "text"),
    "string_unicode": ("contains bytes that are not text", "text"),
    "string_too_long": ("is too long", "at most {max_length} characters"),
    "string_too_short": ("is too short", "at least {min_length} characters"),
    "string_pattern_mismatch": ("has another form", "text of the form {pattern}"),
    "int_type": ("must be a whole number, not {given}", "a whole number"),
    "int_parsing": ("must be a whole number, not {given}", "a whole number"),
    "int_parsing_size": ("has too many digits", "a whole number"),
    "int_from_float": ("must be a whole number, not {given}", "a whole number"),
    "float_type": ("must be a number, not {given}", "a number"),
    "float_parsing": ("must be a number, not {given}", "a number"),
    "finite_number": ("must be a finite number, not {given}", "a finite number"),
    "bool_type": ("must be true or false, not {given}", "true or false"),
    "bool_parsing": ("must be true or false, not {given}", "true or false"),
    "list_type": ("must be a list, not {given}", "a list"),
    "tuple_type": ("must be a list, not {given}", "a list"),
    "iterable_type": ("must be a list, not {given}", "a list"),
    "unexpected_keyword_argument": ("is not part of this request", "only what /openapi.json names"),
    "dataclass_type": ("must be an object, not {given}", "an object"),
    "dict_type": ("must be an object, not {given}", "an object"),
    "model_type": ("must be an object, not {given}", "an object"),
    "model_attributes_type": ("must be an object, not {given}", "an object"),
    "too_long": ("holds too many", "at most {max_length}"),
    "too_short": ("holds too few", "at least {min_length}"),
    "literal_error": ("{given} is none of the choices", "{expected}"),
    "enum": ("{given} is none of the choices", "{expected}"),
    "greater_than": ("{given} is too small", "more than {gt}"),
    "greater_than_equal": ("{given} is too small", "at least {ge}"),
    "less_than": ("{given} is too large", "less than {lt}"),
    "less_than_equal": ("{given} is too large", "at most {le}"),
    "multiple_of": ("{given} is not a multiple of {multiple_of}", "a multiple of {multiple_of}"),
    "date_type": ("must be a day, not {given}", "a day, such as 2030-01-31"),
    "date_parsing": ("is not a day of the calendar", "a day, such as 2030-01-31"),
    "date_from_datetime_parsing": ("is not a day of the calendar", "a day, such as 2030-01-31"),
    "date_from_datetime_inexact": ("must be a day without a time", "a day, such as 2030-01-31"),
    "datetime_type": ("must be an instant, not {given}", "an instant, written as text"),
    "timezone_aware": ("has no time zone", "an instant with its zone"),
    "path_type": ("must be a path, not {given}", "a path"),
    "is_instance_of": ("has the wrong kind: {given}", "what /openapi.json describes"),
}
"""By pydantic's type of an error: what is wrong, and what would be accepted."""
_ANY: Final = ("cannot be accepted as it is", "what /openapi.json describes")
_OUR_OWN: Final = frozenset({"value_error", "assertion_error"})  # raised by the farm, with its own sentence
_OURS_SAYS: Final = "Value error, "


def message(problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return what is wrong with a value."""
    if problem["type"] in _OUR_OWN:
        return str(problem["msg"]).removeprefix(_OURS_SAYS).removeprefix("Assertion failed, ")
    return _filled(_WORDS.get(problem["type"], _ANY)[0], problem)


def wanted(problem: Any) -> str:  # noqa: ANN401 - as above
    """Return what would be accepted, as far as the error itself says."""
    return _filled(_WORDS.get(problem["type"], _ANY)[1], problem)


def spelled(value: object) -> str:
    """Return a value in the spelling of JSON, cut to the length of a message."""
    if isinstance(value, str):
        return f"the text {value[:LONGEST]!r}"
    if isinstance(value, (Mapping, list, tuple)):
        return "an object" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of many digits"
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return f"a {type(value).__name__}"


def choices(names: Sequence[object]) -> str:
    """Return names as a sentence offers them: `a, b or c`."""
    texts = [str(name) for name in names]
    return " or ".join(part for part in (", ".join(texts[:-1]), texts[-1]) if part)


def in_words(schema: Mapping[str, Any]) -> str:
    """Return which values a plain JSON Schema accepts: `a multiple of 8 from 64 to 2048`."""
    if "enum" in schema:
        return choices(schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return "true or false"
    if kind not in {"integer", "number"}:
        return "text"
    what = "a whole number" if kind == "integer" else "a number"
    if "multipleOf" in schema:
        what = f"a multiple of {_short(schema['multipleOf'])}"
    least, most, above = (schema.get(name) for name in ("minimum", "maximum", "exclusiveMinimum"))
    if least is not None and most is not None:
        return f"{what} from {_short(least)} to {_short(most)}"
    if above is not None:
        return f"{what} above {_short(above)}"
    return what if least is None else f"{what} of at least {_short(least)}"


def _filled(words: str, problem: Any) -> str:  # noqa: ANN401 - as above
    return words.format_map({"given": spelled(problem.get("input"))} | dict(problem.get("ctx") or {}))


def _short(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
