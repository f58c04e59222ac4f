"""How values of parameters are written as text, in pictures and on the command line, and read back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from shared.params.samplers import SCHEDULES

BUILT_IN_VAE: Final = "none"

_TITLE: Final = re.compile(r"(.+) \[([0-9a-f]{10})\]", re.DOTALL)
_SIZE: Final = re.compile(r"(\d{1,9})\s*[xX×]\s*(\d{1,9})")
_RESTORERS: Final = ("GFPGAN", "CodeFormer", "RestoreFormer")  # of faces, as other programs write their names
_OFFSET: Final = re.compile(r"(\d{1,9})\s*,\s*(\d{1,9})")


@dataclass(frozen=True)
class Codec:
    """Writes the values of one or more fields as one text; `read` raises ValueError for what it cannot understand."""

    write: Callable[..., str]
    read: Callable[[str], tuple[Any, ...]]


def split_title(title: str) -> tuple[str, str]:
    """Return name and short hash of `name [short hash]`; without a hash the whole, and nothing."""
    titled = _TITLE.fullmatch(title)
    return (titled[1], titled[2]) if titled else (title, "")


def number(value: float) -> str:
    """Return a number as short as it can be without a loss."""
    return str(int(value)) if value.is_integer() else repr(value)


def choice(texts: Mapping[str, Any]) -> Codec:
    """Return the codec of a value that is one of a few; letter case does not matter when it is read."""
    known = {text.casefold(): value for text, value in texts.items()}

    def read(text: str) -> Any:  # noqa: ANN401 - the mapping's
        if text.casefold() not in known:
            raise ValueError(f"must be {' or '.join(texts)}")
        return known[text.casefold()]

    return _single(lambda value: next(text for text, meant in texts.items() if meant == value), read)


def of_type(kind: str) -> Codec:
    """Return the codec of a JSON type."""
    return {"integer": WHOLE, "number": NUMBER, "boolean": FLAG, "array": LIST, "object": GROUP}.get(kind, TEXT)


def _single(write: Callable[[Any], str], read: Callable[[str], Any]) -> Codec:
    return Codec(write, lambda text: (read(text),))


def _plain(value: object) -> object:
    return value.model_dump(mode="json", exclude_defaults=True) if isinstance(value, BaseModel) else value


def _json(kind: type) -> Codec:
    """Return the codec of a list or a group: JSON, of a group what is not at its default."""

    def write(value: Any) -> str:  # noqa: ANN401 - the field's
        return json.dumps([*map(_plain, value)] if kind is list else _plain(value), ensure_ascii=False)

    def read(text: str) -> Any:  # noqa: ANN401 - as above
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("is nested too deep") from None
        if isinstance(value, kind):
            return value
        raise ValueError(f"must be a JSON {'list' if kind is list else 'object'}")

    return _single(write, read)


def _read_whole(text: str) -> int:
    """Return a whole number, also where it is written as a fraction: `12.0`."""
    whole, _, fraction = text.partition(".")
    return int(text if fraction.strip("0") else whole)


def _pair(pattern: re.Pattern[str], form: str) -> Callable[[str], tuple[int, int]]:
    """Return what reads two whole numbers in this form."""

    def read(text: str) -> tuple[int, int]:
        found = pattern.fullmatch(text)
        if not found:
            raise ValueError(f"must be {form}")
        return int(found[1]), int(found[2])

    return read


def _family(name: str) -> str:
    """Return what other programs call the face restorer of this name; itself if they have no word for it."""
    return next((one for one in _RESTORERS if one.casefold() in name.casefold()), name)


def _read_name_and_share(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition(":")
    try:
        return (name, float(share)) if name else (text, 1.0)
    except ValueError:
        return text, 1.0  # the colon belongs to the name


WHOLE: Final = _single(str, _read_whole)
NUMBER: Final = _single(number, float)
TEXT: Final = _single(str, str)
FLAG: Final = choice({"True": True, "False": False})
LIST: Final = _json(list)
GROUP: Final = _json(dict)
SIZE: Final = Codec(lambda width, height: f"{width}x{height}", _pair(_SIZE, "WIDTHxHEIGHT, such as 512x768"))
OFFSET: Final = Codec(lambda left, top: f"{left},{top}", _pair(_OFFSET, "LEFT,TOP, such as 64,0"))
SCHEDULE: Final = choice({label: name for name, label in SCHEDULES.items()})
NAME: Final = _single(lambda title: split_title(title)[0], str)
HASH: Final = _single(lambda title: split_title(title)[1], str)
VAE: Final = _single(
    lambda title: "None" if title == BUILT_IN_VAE else split_title(title)[0],
    lambda text: BUILT_IN_VAE if text == "None" else text,
)
RESTORER_FAMILY: Final = _single(lambda title: _family(split_title(title)[0]), str)
NAME_AND_SHARE: Final = Codec(lambda name, share: f"{name}:{number(share)}", _read_name_and_share)
TILING: Final = _single(lambda _: "True", lambda text: "both" if FLAG.read(text)[0] else "none")
