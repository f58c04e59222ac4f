"""Dotted paths to values in nested parameters: `hires.scale`, `styles.0`, `control_nets.1.strength`.

A whole number counts the items of a list from 0. Without its numbers a path is the name of a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel

Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)

_INDEX: Final = re.compile(r"[0-9]{1,9}")
_NOTHING: Final = object()


class PathError(ValueError):
    """A value cannot be put at a path; the message names the path and says what would do."""


@lru_cache(4096)  # the texts of pictures ask for the same paths again and again
def parsed(path: str) -> Path:
    """`control_nets.1.strength` -> `("control_nets", 1, "strength")`."""
    return tuple(int(part) if _INDEX.fullmatch(part) else part for part in path.split("."))


def dotted(path: Iterable[str | int]) -> str:
    """`("control_nets", 1, "strength")` -> `control_nets.1.strength`."""
    return ".".join(map(str, path))


def field_name(path: str) -> str:
    """`control_nets.1.strength` -> `control_nets.strength`: the field's name, whichever item has the value."""
    return ".".join(part for part in path.split(".") if not part.isdigit())


def get(nested: object, path: str | Path, default: Any = None) -> Any:  # noqa: ANN401 - any field's
    """Return the value at `path` in mappings, lists and models; `default` if something on the way is not there."""
    found = nested
    for part in parsed(path) if isinstance(path, str) else path:
        found = _step(found, part)
    return default if found is _NOTHING else found


def put(nested: dict[str, Any], path: str | Path, value: object) -> None:
    """Set the value at `path`; groups, lists and the next item of a list are made if they are missing.

    Raises PathError if the path has an empty part, leads through a value that is not a group, or past a list's end.
    """
    way = parsed(path) if isinstance(path, str) else path
    holder: Any = nested
    for at, part in enumerate(way):
        _require_holds(holder, way, at)
        if at == len(way) - 1:
            _set(holder, part, value)
        elif _step(holder, part) is _NOTHING:
            _set(holder, part, [] if isinstance(way[at + 1], int) else {})
        holder = holder[part]


def remove(nested: dict[str, Any], bad: Iterable[str | Path]) -> list[bool]:
    """Take the values at these paths out; return for each whether there was anything to take out.

    A path to a missing value takes out the group that cannot do without it.
    """
    found: list[Path | None] = []
    for path in bad:
        way = parsed(path) if isinstance(path, str) else path
        starts = (way[:end] for end in range(len(way), 0, -1))  # the value, else the group around it
        found.append(next((start for start in starts if get(nested, start, _NOTHING) is not _NOTHING), None))
    for *around, last in sorted(set(filter(None, found)), key=_order, reverse=True):  # from the last item of a list on
        holder = get(nested, tuple(around))
        if _step(holder, last) is not _NOTHING:
            del holder[last]
    return [path is not None for path in found]


def replaced(model: Model, changes: Mapping[str, object]) -> Model:
    """Return the model with other values at these paths. Raises PathError if one is not there."""
    changed: Any = model
    for path, value in changes.items():
        changed = _replaced(changed, parsed(path), value, path)
    return cast("Model", changed)


def in_order(paths: Iterable[str]) -> list[str]:
    """Return paths so that each can be `put` after those before it: groups before fields, items of lists in order."""
    return sorted(paths, key=lambda path: _order(parsed(path)))


def _replaced(holder: object, path: Path, value: object, whole: str) -> object:
    if not path:
        return value
    inner = _step(holder, path[0])
    if inner is _NOTHING or isinstance(holder, Mapping):
        raise PathError(f"{whole} is not there: nothing can take its place")
    changed = _replaced(inner, path[1:], value, whole)
    if isinstance(holder, BaseModel):
        return holder.model_copy(update={str(path[0]): changed})
    items = list(cast("Sequence[object]", holder))
    items[int(path[0])] = changed
    return tuple(items)


def _step(holder: object, part: str | int) -> Any:  # noqa: ANN401 - any field's
    """Return what `holder` has under `part`, or _NOTHING."""
    if isinstance(holder, BaseModel):
        # Not `model_fields`: that is a property which looks for itself again each time.
        return getattr(holder, part, _NOTHING) if part in type(holder).__pydantic_fields__ else _NOTHING
    if isinstance(holder, Mapping):
        return holder.get(part, _NOTHING)
    if isinstance(holder, Sequence) and not isinstance(holder, str) and isinstance(part, int):
        return holder[part] if part < len(holder) else _NOTHING
    return _NOTHING


def _require_holds(holder: object, way: Path, at: int) -> None:
    """Raise PathError unless `holder` can have a value under the part of the path at `at`."""
    part, around, whole = way[at], dotted(way[:at]), dotted(way)
    if part == "":
        raise PathError(f"{whole!r} is not a path: write names joined by dots, such as hires.scale")
    if isinstance(holder, list):
        if not isinstance(part, int):
            raise PathError(f"{whole}: {around} is a list, its items are {around}.0, {around}.1, …")
        if part > len(holder):
            items = f"{len(holder)} item{'' if len(holder) == 1 else 's'}"
            raise PathError(f"{whole}: {around} has {items}, the next one is {around}.{len(holder)}")
    elif not isinstance(holder, dict):
        raise PathError(f"{around} is given as a whole and by {whole}: leave one out")
    elif isinstance(part, int):
        raise PathError(f"{whole}: {around or 'the whole'} is not a list")


def _set(holder: Any, part: str | int, value: object) -> None:  # noqa: ANN401 - a dict or a list
    if isinstance(holder, list) and part == len(holder):
        holder.append(value)
    else:
        holder[part] = value


def _order(path: Path) -> tuple[int, list[str]]:
    return len(path), [str(part).zfill(9) if isinstance(part, int) else part for part in path]
