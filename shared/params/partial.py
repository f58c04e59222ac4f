"""Parameters without the values that cannot be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from shared.params.paths import Path
from shared.params.render import RenderParams


def readable(given: Mapping[str, Any], bad: Iterable[Path]) -> RenderParams:
    """Return the parameters of `given` without the values at `bad`; a group that is invalid without one is left out.

    A list ends before its first bad item, so that the others keep their numbers.
    """
    left = _without(given, bad)
    try:
        return RenderParams.model_validate(left)
    except ValidationError as error:
        return RenderParams.model_validate(_without(left, [problem["loc"][:1] for problem in error.errors()]))


def _without(given: Mapping[str, Any], bad: Iterable[Path]) -> dict[str, Any]:
    left = _mended(given, bad)
    return left if isinstance(left, dict) else {}


def _mended(value: object, bad: Iterable[Path]) -> object:
    """Return `value` without what is at `bad` in it, in linear time: a body may be wrong in all of it."""
    inner: dict[int | str, list[Path]] = defaultdict(list)
    for first, *rest in bad:
        inner[first].append(tuple(rest))
    if isinstance(value, Mapping):
        kept = {name: one for name, one in value.items() if () not in inner.get(name, ())}
        return {name: _mended(one, inner[name]) if name in inner else one for name, one in kept.items()}
    if isinstance(value, list | tuple):
        first_bad = min((at for at in inner if isinstance(at, int) and () in inner[at]), default=len(value))
        return [_mended(one, inner[at]) if at in inner else one for at, one in enumerate(value[:first_bad])]
    return None
