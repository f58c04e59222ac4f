"""Fields of nested parameters by their place: the names that lead to them, the outermost first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def get(params: dict[str, Any], place: Sequence[str]) -> object:
    """Return the field at `place`; None where there is none."""
    found: Any = params
    for name in place:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def put(params: dict[str, Any], place: Sequence[str], value: object) -> None:
    """Set the field at `place`, in parts that are made where there are none."""
    *parts, name = place
    for part in parts:
        params = params.setdefault(part, {})
    params[name] = value


def remove(params: dict[str, Any], place: Sequence[str]) -> bool:
    """Take the field at `place` out; one that is missing, which its part cannot do without, takes that part along.

    False where there is nothing to take out.
    """
    *parts, name = place
    holder = params
    for part in parts:
        holder = holder.get(part, {})
    if name in holder:
        del holder[name]
        return True
    return bool(parts) and remove(params, parts)
