"""Parameters without the values that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from shared.params.render import RenderParams

Place = tuple[int | str, ...]  # of a value: the names that lead to it, the outermost first


def rest(given: Mapping[str, Any], bad: Iterable[Place]) -> RenderParams:
    """Return what is left of `given` without the values at `bad`; a group that cannot stand without one goes whole."""
    left = _without(given, bad)
    try:
        return RenderParams.model_validate(left)
    except ValidationError as error:
        return RenderParams.model_validate(_without(left, [problem["loc"][:1] for problem in error.errors()]))


def _without(given: Mapping[str, Any], bad: Iterable[Place]) -> dict[str, Any]:
    """Return `given` without the values at `bad`, in linear time: whoever sends much may be wrong in all of it."""
    inner: dict[int | str, list[Place]] = {}
    for first, *rest in bad:
        inner.setdefault(first, []).append(tuple(rest))
    return {
        name: _mended(value, inner[name]) if name in inner else value
        for name, value in given.items()
        if () not in inner.get(name, ())
    }


def _mended(value: object, bad: Iterable[Place]) -> object:
    return _without(value, bad) if isinstance(value, Mapping) else None
