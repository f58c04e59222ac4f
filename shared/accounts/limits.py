"""Limits: how much of the farm an owner may use at most. Each may be absent.

People write them as `queued=100`, one word a limit: in the settings of a role, and on the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from shared.errors import FieldError, Refused
from shared.wording import LONGEST, choices

NONE: Final = "none"
"""How people write that there is no limit, where the role has one."""
_MOST: Final = 10**12


@dataclass(frozen=True)
class OwnerLimits:
    """How much of the farm an owner may use; None: no limit."""

    queued: int | None = None


NO_LIMITS: Final = OwnerLimits()


class Limit(NamedTuple):
    """One limit: what it counts, and how its value is read."""

    counts: str
    accepted: str
    read: Callable[[object], object]  # raises ValueError


def _number(value: object) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not text.isdecimal() or len(text) > len(str(_MOST)) or int(text) > _MOST:
        raise ValueError
    return int(text)


_NUMBER: Final = f"a whole number from 0, or {NONE}"

LIMITS: Final[Mapping[str, Limit]] = {
    "queued": Limit("images that wait", _NUMBER, _number),
}
"""Every limit by its name."""


def parse(given: object) -> dict[str, Any]:
    """Return the limits of a JSON object, None for those that are lifted. Raises Refused that names every wrong one."""
    if not isinstance(given, Mapping):
        problem = FieldError("body", "is not an object", 'such as {"queued": 100}')
        raise Refused("Limits are given as an object: body.", (problem,))
    found, problems = dict[str, Any](), list[FieldError]()
    for name, value in given.items():
        limit = LIMITS.get(name)
        if limit is None:
            problems.append(FieldError(str(name)[:LONGEST], "is not a limit", choices([*LIMITS])))
            continue
        try:
            found[name] = None if value is None or value == NONE else limit.read(value)
        except ValueError:
            problems.append(FieldError(name, "is not what it may be", limit.accepted))
    if problems:
        raise Refused(f"These limits cannot be set: {', '.join(one.field for one in problems)}.", tuple(problems))
    return found


def of_words(words: Iterable[str]) -> dict[str, str]:
    """Return name -> value of words such as `queued=100`. Raises Refused."""
    pairs = [word.partition("=") for word in words]
    if wrong := [name for name, mark, _ in pairs if not mark]:
        problem = FieldError(wrong[0][:LONGEST], "has no value", "a limit and its value, such as queued=100")
        raise Refused(f"These limits cannot be read: {problem.field} {problem.message}.", (problem,))
    return {name: value for name, _, value in pairs}


def of_role(text: str) -> OwnerLimits:
    """Return the limits that a setting gives to a role. Raises ValueError."""
    try:
        return OwnerLimits(**parse(of_words(shlex.split(text))))
    except Refused as refused:
        first = refused.fields[0]
        raise ValueError(f"has {first.field}, which {first.message}: {first.accepted}") from None
