"""A job's scheduling: which fields have the right form, and which are not possible now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.admission.accepted import accepted
from shared.db.tables import Job
from shared.errors import FieldError
from shared.params.pools import DEFAULT_POOL
from shared.params.scheduling import NO_SCHEDULING, Scheduling, utc_words
from shared.queue import dependencies, pools
from shared.settings import Limits
from shared.webhooks import addresses
from shared.wording import choices, message

ACCEPTED: Final = {name: accepted(name, Limits()) for name in Scheduling.model_fields}
"""What each field of the scheduling accepts, in words."""

TOO_EARLY: Final = FieldError(
    "expires_at", "is not after hold_until, so no image could start", "an instant after hold_until"
)
"""The deadline of a job that is held beyond it."""

UNSERVED_POOLS: Final = 20
"""How many pools without a living worker the open jobs of one owner may name; the default pool is not counted."""


class SplitRequest(NamedTuple):
    """A request, split into scheduling and parameters, with the fields of the scheduling that have a wrong form."""

    scheduling: Scheduling
    rest: dict[str, Any]
    problems: tuple[FieldError, ...]


def split(given: Mapping[str, Any]) -> SplitRequest:
    """Return the scheduling that a JSON object asks for, without fields of a wrong form."""
    fields = {name: given[name] for name in ACCEPTED if name in given}
    rest = {name: value for name, value in given.items() if name not in ACCEPTED}
    try:
        return SplitRequest(Scheduling.model_validate(fields), rest, ())
    except ValidationError as error:
        wrong = {str(problem["loc"][0]): problem for problem in error.errors(include_url=False)}
    problems = tuple(FieldError(name, message(problem), ACCEPTED[name]) for name, problem in wrong.items())
    right = {name: value for name, value in fields.items() if name not in wrong}
    return SplitRequest(Scheduling.model_validate(right), rest, problems)


def in_open_pool(scheduling: Scheduling, allowed: Sequence[str] | None) -> Scheduling:
    """Return a scheduling that names no pool in the first of those allowed, if the default pool is not one of them."""
    if not allowed or "pool" in scheduling.model_fields_set or scheduling.pool in allowed:
        return scheduling
    return scheduling.model_copy(update={"pool": allowed[0]})


def impossible(session: Session, owner: str, scheduling: Scheduling, limits: Limits) -> list[FieldError]:
    """Return the fields that are not possible now.

    They depend on the database's clock, the owner's other jobs and the owner's rights.
    """
    closed = _closed(scheduling.pool, limits.of_owner.pools)
    if scheduling == NO_SCHEDULING:
        return closed
    return [
        *closed,
        *_forbidden(owner, scheduling, limits),
        *_past(session, scheduling),
        *_contradictions(scheduling),
        *_unknown(session, owner, scheduling),
        *_one_pool_too_many(session, owner, scheduling.pool),
        *_unreachable(scheduling, limits),
        *dependencies.problems(session, owner, scheduling.after, scheduling.on),
    ]


def _forbidden(owner: str, scheduling: Scheduling, limits: Limits) -> list[FieldError]:
    if not scheduling.urgent or limits.may_be_urgent(owner):
        return []
    if limits.of_owner.urgent is False:
        return [FieldError("urgent", "your jobs may not be urgent here", "false, with a priority to order your own")]
    who = f"only jobs of {' and '.join(limits.urgent_owners or ())}" if limits.urgent_owners else "no jobs"
    instead = "false, with a priority to order your own; the operator of this farm can name you in FARM_URGENT_OWNERS"
    return [FieldError("urgent", f"{who} may be urgent here", instead)]


def _closed(pool: str, allowed: Sequence[str] | None) -> list[FieldError]:
    if allowed is None or pool in allowed:
        return []
    return [FieldError("pool", f"your jobs may not wait in the pool {pool}", choices([*allowed]))]


def _contradictions(scheduling: Scheduling) -> list[FieldError]:
    first, *others = scheduling.holds or [""]
    problems = [
        FieldError(name, f"cannot be combined with {first}", "one of hold, hold_until, hold_behind and after")
        for name in others
    ]
    if scheduling.expires_at and scheduling.hold_until and scheduling.expires_at <= scheduling.hold_until:
        problems.append(TOO_EARLY)
    return problems


def _past(session: Session, scheduling: Scheduling) -> list[FieldError]:
    now = session.scalars(select(func.clock_timestamp())).one()
    instants = {"expires_at": scheduling.expires_at, "hold_until": scheduling.hold_until}
    return [
        FieldError(name, f"{utc_words(instant)} has passed", ACCEPTED[name])
        for name, instant in instants.items()
        if instant is not None and instant <= now
    ]


def _unknown(session: Session, owner: str, scheduling: Scheduling) -> list[FieldError]:
    found = select(Job.id).where(Job.id == scheduling.hold_behind, Job.owner == owner)
    if scheduling.hold_behind is None or session.scalar(found) is not None:
        return []
    return [FieldError("hold_behind", f"there is no job {scheduling.hold_behind}", ACCEPTED["hold_behind"])]


def _unreachable(scheduling: Scheduling, limits: Limits) -> list[FieldError]:
    wrong = scheduling.webhook is not None and addresses.wrong_with(scheduling.webhook, limits.inside_networks)
    return [FieldError("webhook", wrong, ACCEPTED["webhook"])] if wrong else []


def _one_pool_too_many(session: Session, owner: str, pool: str) -> list[FieldError]:
    """Return the problem of a pool without a living worker if the owner's jobs name as many such pools as they may.

    Each pool is a queue in Redis, and lanes that every snapshot reads. Simultaneous submissions may add a few more.
    """
    if pool == DEFAULT_POOL or pool in (served := pools.served(session)) or pools.is_awaited(session, owner, pool):
        return []
    waited_for = pools.unserved(session, owner, but=[DEFAULT_POOL, *served])
    if len(waited_for) < UNSERVED_POOLS:
        return []
    problem = f"no living worker serves it, and your jobs wait for {len(waited_for)} such pools already"
    return [
        FieldError("pool", problem, f"a pool that living workers serve: {', '.join(served) or 'there is none now'}")
    ]
