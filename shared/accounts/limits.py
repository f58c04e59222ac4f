"""Limits: how much of the farm an owner may use at most. Each may be absent.

People write them as `queued=100`, one word a limit: in the settings of a role, and on the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from shared.errors import FieldError, Refused
from shared.params.fields import checked_text
from shared.wording import LONGEST, choices

NONE: Final = "none"
"""How people write that there is no limit, where the role has one."""
AS_ROLE: Final = "role"
"""How people write that a limit is the role's again."""
_MOST: Final = 10**12
_MOST_NAMES: Final = 100
_LONGEST_NAME: Final = 200


@dataclass(frozen=True)
class OwnerLimits:
    """How much of the farm an owner may use; None: no limit."""

    queued: int | None = None
    running: int | None = None
    daily_images: int | None = None
    daily_work: int | None = None
    monthly_gpu_seconds: int | None = None
    upload_mb: int | None = None
    checkpoints: tuple[str, ...] | None = None
    pools: tuple[str, ...] | None = None
    urgent: bool | None = None

    role_running: int | None = field(default=None, compare=False)  # the limit of the role alone
    is_told: bool = field(default=True, compare=False)  # workers know that


NO_LIMITS: Final = OwnerLimits()


class Limit(NamedTuple):
    """One limit: what it counts, and how its value is read."""

    label: str
    accepted: str
    read: Callable[[object], object]  # raises ValueError


def _number(value: object) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not text.isdecimal() or len(text) > len(str(_MOST)) or int(text) > _MOST:
        raise ValueError
    return int(text)


def _names(value: object) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError
    names = tuple(dict.fromkeys(checked_text(one).strip() for one in given))
    if not 1 <= len(names) <= _MOST_NAMES or not all(0 < len(one) <= _LONGEST_NAME for one in names):
        raise ValueError
    if any("," in one for one in names) or names in [(NONE,), (AS_ROLE,)]:  # written down, it would be another limit
        raise ValueError
    return names


def _is_allowed(value: object) -> bool:
    known = {"yes": True, "no": False}
    found = value if isinstance(value, bool) else known.get(str(value).casefold())
    if found is None:
        raise ValueError
    return found


_NUMBER: Final = f"a whole number from 0, or {NONE}"

_NAMES: Final = f"names with commas between them, or {NONE}: all"

LIMITS: Final[Mapping[str, Limit]] = {
    "queued": Limit("images that wait", _NUMBER, _number),
    "running": Limit("images that run at once", _NUMBER, _number),
    "daily_images": Limit("images a day", _NUMBER, _number),
    "daily_work": Limit("megapixel steps a day", _NUMBER, _number),
    "monthly_gpu_seconds": Limit("GPU seconds a month", _NUMBER, _number),
    "upload_mb": Limit("MiB of source pictures", _NUMBER, _number),
    "checkpoints": Limit("checkpoints that may be used", _NAMES, _names),
    "pools": Limit("pools that may be used", _NAMES, _names),
    "urgent": Limit("whether jobs may be urgent", f"yes, no, or {NONE}: as the farm has it", _is_allowed),
}
"""Every limit by its name."""


def parse(given: object) -> dict[str, Any]:
    """Return the limits of a JSON object: None for those that are lifted, `AS_ROLE` for those that are the role's.

    Raises Refused that names every wrong one.
    """
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
            is_word = value is None or value in (NONE, AS_ROLE)
            found[name] = limit.read(value) if not is_word else AS_ROLE if value == AS_ROLE else None
        except ValueError:
            problems.append(FieldError(name, "is not what it may be", limit.accepted))
    if problems:
        raise Refused(f"These limits cannot be set: {', '.join(one.field for one in problems)}.", tuple(problems))
    return found


def owner(given: str) -> str:
    """Return an owner's name. Raises Refused."""
    name = given.strip()
    if not 1 <= len(name) <= LONGEST or not name.isprintable() or {*name} & {*",:*"}:
        accepted = f"1 to {LONGEST} characters, without commas, colons and stars"
        raise Refused("This cannot be an owner.", (FieldError("owner", "cannot be an owner", accepted),))
    return name


def written(value: object) -> str:
    """Return the value of a limit as people write it."""
    if value is None or isinstance(value, bool):
        return NONE if value is None else ("yes" if value else "no")
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def words(given: Mapping[str, Any]) -> str:
    """Return limits as `of_words` and the settings of roles take them."""
    return " ".join(f"{name}={shlex.quote(written(value))}" for name, value in sorted(given.items()))


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
        given = parse(of_words(shlex.split(text)))
    except Refused as refused:
        first = refused.fields[0]
        raise ValueError(f"has {first.field!r}, which {first.message}: {first.accepted}") from None
    return OwnerLimits(**{name: value for name, value in given.items() if value != AS_ROLE})
