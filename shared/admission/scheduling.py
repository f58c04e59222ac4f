"""A job's terms at the door: what of them has the right form, and what cannot be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.admission.accepted import accepted
from shared.db.tables import Job
from shared.errors import FieldError
from shared.params.pools import DEFAULT_POOL
from shared.params.scheduling import NO_SCHEDULING, Scheduling, told
from shared.queue import pools
from shared.settings import Limits
from shared.wording import message

ACCEPTED: Final = {name: accepted(name, Limits()) for name in Scheduling.model_fields}
"""What each field of the terms accepts, in words."""

UNSERVED_POOLS: Final = 20
"""So many pools that no living worker serves one owner's open jobs may name; the usual one is not refused."""


class Parted(NamedTuple):
    """What was given, parted into the terms and the rest, and what is wrong with the form of the terms."""

    terms: Scheduling
    rest: object
    problems: tuple[FieldError, ...]


def part(given: object) -> Parted:
    """Return the terms of what was given, a JSON object or whatever else came, without those of a wrong form."""
    if not isinstance(given, Mapping):
        return Parted(NO_SCHEDULING, given, ())
    asked = {name: given[name] for name in ACCEPTED if name in given}
    rest = {name: value for name, value in given.items() if name not in ACCEPTED}
    try:
        return Parted(Scheduling.model_validate(asked), rest, ())
    except ValidationError as error:
        wrong = {str(problem["loc"][0]): problem for problem in error.errors(include_url=False)}
    problems = tuple(FieldError(name, message(problem), ACCEPTED[name]) for name, problem in wrong.items())
    right = {name: value for name, value in asked.items() if name not in wrong}
    return Parted(Scheduling.model_validate(right), rest, problems)


def impossible(session: Session, owner: str, terms: Scheduling, limits: Limits) -> list[FieldError]:
    """Return what is wrong with terms now, on the database's clock, among the owner's jobs and by what it may."""
    if terms == NO_SCHEDULING:
        return []
    return [
        *_forbidden(owner, terms, limits),
        *_past(session, terms),
        *_contradictions(terms),
        *_unknown(session, owner, terms),
        *_one_pool_too_many(session, owner, terms.pool),
    ]


def _forbidden(owner: str, terms: Scheduling, limits: Limits) -> list[FieldError]:
    if not terms.urgent or limits.may_be_urgent(owner):
        return []
    who = f"only jobs of {' and '.join(limits.urgent_owners or ())}" if limits.urgent_owners else "no jobs"
    instead = "false, with a priority to order your own; whoever runs this farm can name you in FARM_URGENT_OWNERS"
    return [FieldError("urgent", f"{who} may be urgent here", instead)]


def _contradictions(terms: Scheduling) -> list[FieldError]:
    first, *others = terms.holds or [""]
    problems = [FieldError(name, f"comes beside {first}", "one of hold, hold_until and hold_behind") for name in others]
    if terms.expires_at and terms.hold_until and terms.expires_at <= terms.hold_until:
        problems.append(FieldError("expires_at", "is not after hold_until: nothing could start", "a later instant"))
    return problems


def _past(session: Session, terms: Scheduling) -> list[FieldError]:
    now = session.scalars(select(func.clock_timestamp())).one()
    instants = {"expires_at": terms.expires_at, "hold_until": terms.hold_until}
    return [
        FieldError(name, f"{told(instant)} has passed", ACCEPTED[name])
        for name, instant in instants.items()
        if instant is not None and instant <= now
    ]


def _unknown(session: Session, owner: str, terms: Scheduling) -> list[FieldError]:
    found = select(Job.id).where(Job.id == terms.hold_behind, Job.owner == owner)
    if terms.hold_behind is None or session.scalar(found) is not None:
        return []
    return [FieldError("hold_behind", f"there is no job {terms.hold_behind}", ACCEPTED["hold_behind"])]


def _one_pool_too_many(session: Session, owner: str, pool: str) -> list[FieldError]:
    """Return what is wrong with a pool that nobody serves where the owner waits for as many such as anybody may.

    Each is a queue in Redis, and lanes that every snapshot looks through. Submissions at once, and retries, may bring a
    few more.
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
