"""The outbox: what has happened, written by the transaction that made it happen, and delivered at least once.

A trigger on jobs writes the rows (revision 0024). A row that is taken is due again some time later, so one whose
deliverer was killed is delivered by the next. A consumer must be safe if it gets an event twice, or after a later one.

An event that fails is tried again after pauses that double up to an hour. After about a day it is set aside: it stays
in the table with the reason, `farm doctor` counts it, and a person has it tried again (`farm db redeliver`). No
outage of the storage or the database does that, however long it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts.scope import OWNED, Scope
from shared.db.sessions import Sessions, transact
from shared.errors import FarmError, StorageAway, Unavailable, explain

log = structlog.get_logger(__name__)

_MOST_IN_A_ROW: Final = 1000  # then the caller has other work as well
_LONGEST_SECONDS: Final = 3600.0  # between two tries of what fails again and again
_MOST_TRIES: Final = 30  # a day, if the first pause is one of 20 s
_LONGEST_REASON: Final = 500  # characters
_ENDS_PROCESSES: Final = "each process that delivered it ended before it was done; its memory may not suffice"
_KEPT_DAYS: Final = 7
_MOST_ENDS: Final = 100  # that one reader gets at once
_BATCH: Final = 1000


class EventKind(StrEnum):
    """What can have happened."""

    JOB_ENDED = "job_ended"  # `job_id` was open and has ended; after a retry it ends once more
    JOB_DELETED = "job_deleted"  # `job_id`, for which others wait, was deleted


@dataclass(frozen=True)
class OutboxEvent:
    """Something that has happened: `id` is its own, also among several ends of one job."""

    id: int
    kind: str  # EventKind; another version may know more
    at: datetime
    job_id: int  # may have been deleted since
    owner: str
    state: str | None = None  # that the job ended in; None: recorded by an older version


Consumer = Callable[[OutboxEvent], None]
"""Does what follows from an event. If it raises, the event is delivered again later, to all consumers."""


@dataclass(frozen=True)
class Delivered:
    """How many events were delivered, have to be tried again, and were set aside."""

    events: int = 0
    failed: int = 0
    set_aside: int = 0


class Failure(NamedTuple):
    """Why an event could not be delivered, and whether an outage is to blame, which says nothing of the event."""

    reason: str
    is_outage: bool = False


# Index: ix_outbox_due. Locked rows are being taken by another process.
_TAKE = text("""
    WITH taken AS (
        SELECT id
        FROM outbox
        WHERE delivered_at IS NULL
          AND dead_at IS NULL
          AND due_at <= clock_timestamp()
        ORDER BY due_at, id
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE outbox
    SET tries = tries + 1,
        due_at = clock_timestamp() + least(:seconds * power(2, least(tries, 30)), :longest) * interval '1 second'
    FROM taken
    WHERE outbox.id = taken.id
    RETURNING outbox.id, kind, at, job_id, owner, tries, state
""")

_FAILED = text("""
    UPDATE outbox
    SET reason = :reason,
        -- A try during an outage is not the last one.
        tries = CASE WHEN :is_outage THEN least(tries, :most - 1) ELSE tries END,
        dead_at = CASE WHEN tries >= :most AND NOT :is_outage THEN clock_timestamp() END
    WHERE id = :id
      AND delivered_at IS NULL
    RETURNING dead_at IS NOT NULL
""")

_TRY_AGAIN = text("""
    UPDATE outbox
    SET dead_at = NULL,
        tries = 0,
        due_at = clock_timestamp()
    WHERE dead_at IS NOT NULL
""")

_MARK = text("UPDATE outbox SET delivered_at = clock_timestamp() WHERE id = :id AND delivered_at IS NULL")

# Index: ix_outbox_delivered_at.
_FORGET = text("""
    WITH old AS (
        SELECT id
        FROM outbox
        WHERE delivered_at < clock_timestamp() - make_interval(days => :days)
        LIMIT :batch
        FOR UPDATE SKIP LOCKED
    ),
    forgotten AS (
        DELETE FROM outbox
        USING old
        WHERE outbox.id = old.id
        RETURNING outbox.id
    )
    SELECT count(*) FROM forgotten
""")


def deliver(sessions: Sessions, consumers: Sequence[Consumer], again_seconds: float) -> Delivered:
    """Deliver what is due, one event after the other. Raises Unavailable.

    An event that a consumer failed at is due again after `again_seconds`, and after twice as long each time, up to a
    bound; others go past it. Any number of processes may do this at a time, and each may be ended anywhere.
    """
    done = failed = dead = 0
    take = partial(_take, seconds=again_seconds)
    while done + failed + dead < _MOST_IN_A_ROW and (taken := transact(sessions, take)):
        event, tries = taken
        try:
            # One that was taken so often and never failed has ended its deliverers.
            failure = hand_out(event, consumers) if tries <= _MOST_TRIES else Failure(_ENDS_PROCESSES)
        except Unavailable as away:
            with suppress(Unavailable):  # so that no outage is taken for an event that ends its deliverers
                outage = Failure(explain(away), is_outage=True)
                transact(sessions, partial(_fail, event_id=event.id, failure=outage))
            raise
        if failure is None:
            transact(sessions, partial(_mark, event_id=event.id))
            done += 1
        elif transact(sessions, partial(_fail, event_id=event.id, failure=failure)):
            log.error("event set aside", event_id=event.id, kind=event.kind, job=event.job_id, reason=failure.reason)
            dead += 1
        else:
            failed += 1
    return Delivered(done, failed, dead)


def hand_out(event: OutboxEvent, consumers: Sequence[Consumer]) -> Failure | None:
    """Give `event` to all consumers; return why one of them has not done its part. Raises Unavailable."""
    found = [failure for consumer in consumers if (failure := _failure(event, consumer))]  # none keeps it from others
    return max(found, key=lambda failure: failure.is_outage, default=None)


def try_again(session: Session) -> int:
    """Have the events that were set aside delivered, with as many tries as new ones; return how many."""
    return int(session.execute(_TRY_AGAIN).rowcount)  # type: ignore[attr-defined]  # of every UPDATE


class Place(NamedTuple):
    """How far somebody has read the ends of jobs.

    Ids alone do not say it: they are given out in the order in which transactions write, which may commit in another.
    """

    event: int  # the latest
    horizon: int | None = None  # every older transaction had ended by then; None: as the event itself says

    @classmethod
    def read(cls, written: str) -> Place | None:
        """Return the place that `str` has written; None if it is none."""
        found = _PLACE.fullmatch(written)
        return cls(int(found[1]), int(found[2]) if found[2] else None) if found else None

    def past(self, event_id: int) -> Place:
        """Return the place of who has read one more event; an older one leaves it as it is."""
        return Place(event_id) if event_id > self.event else self

    def __str__(self) -> str:
        return str(self.event) if self.horizon is None else f"{self.event}-{self.horizon}"


class Ends(NamedTuple):
    """Ends of jobs that the outbox still has, and the place of who has read them."""

    events: list[OutboxEvent]
    place: Place


_PLACE: Final = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NOW: Final = text("""
    SELECT coalesce(max(id), 0), pg_snapshot_xmin(pg_current_snapshot())::text::bigint FROM outbox
""")
# A week of events at most. Indexes: the primary key, ix_outbox_transaction.
_ENDS = text(f"""
    SELECT id, kind, at, job_id, owner, state
    FROM outbox
    WHERE (
          id > :event
          -- It may have committed after the event of the place.
          OR transaction >= coalesce(CAST(:horizon AS bigint), (SELECT horizon FROM outbox WHERE id = :event))
      )
      AND id <> :event
      AND kind = 'job_ended'
      AND {OWNED}
    ORDER BY id DESC
    LIMIT :most
""")  # noqa: S608 - a constant


def ends(session: Session, whose: Scope, after: Place | None) -> Ends:
    """Return the ends of jobs after a place, of many the latest; None: none of them.

    An end that was written at the same time as that of the place may be among them although it was read before.
    """
    last, horizon = session.execute(_NOW).one()  # read first: what commits meanwhile is found again the next time
    if after is None:
        return Ends([], Place(last, horizon))
    found = session.execute(_ENDS, after._asdict() | {"whose": whose.owner, "most": _MOST_ENDS}).mappings()
    events = [OutboxEvent(**row) for row in found][::-1]
    return Ends(events, Place(max(after.event, *(event.id for event in events[-1:])), horizon) if events else after)


def forget(sessions: Sessions) -> int:
    """Delete what was delivered more than a week ago; return how many rows. Raises Unavailable."""
    forgotten = 0
    while some := transact(sessions, _forget):
        forgotten += some
    return forgotten


def _failure(event: OutboxEvent, consumer: Consumer) -> Failure | None:
    try:
        consumer(event)
    except Unavailable:
        raise
    except FarmError as error:
        log.warning("event not delivered yet", event_id=event.id, job=event.job_id, reason=explain(error))
        return Failure(explain(error), is_outage=isinstance(error, StorageAway))
    except Exception as error:
        log.exception("event not delivered", event_id=event.id, kind=event.kind, job=event.job_id)
        return Failure(repr(error))
    return None


def _take(session: Session, seconds: float) -> tuple[OutboxEvent, int] | None:
    """Return the event that is due, and how often it was taken, this time counted."""
    row = session.execute(_TAKE, {"seconds": seconds, "longest": _LONGEST_SECONDS}).mappings().one_or_none()
    if row is None:
        return None
    columns: dict[str, Any] = dict(row)
    tries: int = columns.pop("tries")
    return OutboxEvent(**columns), tries


def _fail(session: Session, event_id: int, failure: Failure) -> bool:
    """Note why an event could not be delivered; return whether it is set aside for that."""
    given = {"id": event_id, "reason": failure.reason[:_LONGEST_REASON], "is_outage": failure.is_outage}
    return session.scalar(_FAILED, given | {"most": _MOST_TRIES}) is True


def _mark(session: Session, event_id: int) -> None:
    session.execute(_MARK, {"id": event_id})


def _forget(session: Session) -> int:
    return int(session.scalar(_FORGET, {"days": _KEPT_DAYS, "batch": _BATCH}) or 0)
