"""The outbox: what has happened, written by the transaction that made it happen, and delivered at least once.

A trigger on jobs writes the rows (revision 0024). A row that is taken is due again some time later, so one whose
deliverer was killed is delivered by the next. A consumer must be safe if it gets an event twice, or after a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, transact
from shared.errors import FarmError, Unavailable, explain

log = structlog.get_logger(__name__)

_MOST_IN_A_ROW: Final = 1000  # then the caller has other work as well
_LONGEST: Final = 16  # times the first pause: between two tries of what fails again and again
_KEPT_DAYS: Final = 7
_BATCH: Final = 1000


class EventKind(StrEnum):
    """What can have happened."""

    JOB_ENDED = "job_ended"  # `job_id` was open and has ended; after a retry it ends once more


@dataclass(frozen=True)
class OutboxEvent:
    """Something that has happened: `id` is its own, also among several ends of one job."""

    id: int
    kind: str  # EventKind; another version may know more
    at: datetime
    job_id: int  # may have been deleted since
    owner: str


Consumer = Callable[[OutboxEvent], None]
"""Does what follows from an event. If it raises, the event is delivered again later, to all consumers."""


@dataclass(frozen=True)
class Delivered:
    """How many events were delivered, and how many have to be tried again."""

    events: int = 0
    failed: int = 0


# Index: ix_outbox_due. Locked rows are being taken by another process.
_TAKE = text("""
    WITH taken AS (
        SELECT id
        FROM outbox
        WHERE delivered_at IS NULL
          AND due_at <= clock_timestamp()
        ORDER BY due_at, id
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    UPDATE outbox
    SET tries = tries + 1,
        due_at = clock_timestamp() + :seconds * least(power(2, least(tries, 30)), :longest) * interval '1 second'
    FROM taken
    WHERE outbox.id = taken.id
    RETURNING outbox.id, kind, at, job_id, owner
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
    done = failed = 0
    while done + failed < _MOST_IN_A_ROW and (event := transact(sessions, partial(_take, seconds=again_seconds))):
        if hand_out(event, consumers):
            transact(sessions, partial(_mark, event_id=event.id))
            done += 1
        else:
            failed += 1
    return Delivered(done, failed)


def hand_out(event: OutboxEvent, consumers: Sequence[Consumer]) -> bool:
    """Give `event` to all consumers; return whether each has done its part. Raises Unavailable."""
    done = [_is_consumed(event, consumer) for consumer in consumers]  # none keeps it from the others
    return all(done)


def forget(sessions: Sessions) -> int:
    """Delete what was delivered more than a week ago; return how many rows. Raises Unavailable."""
    forgotten = 0
    while some := transact(sessions, _forget):
        forgotten += some
    return forgotten


def _is_consumed(event: OutboxEvent, consumer: Consumer) -> bool:
    try:
        consumer(event)
    except Unavailable:
        raise
    except FarmError as error:
        log.warning("event not delivered yet", event_id=event.id, job=event.job_id, reason=explain(error))
        return False
    except Exception:
        log.exception("event not delivered", event_id=event.id, kind=event.kind, job=event.job_id)
        return False
    return True


def _take(session: Session, seconds: float) -> OutboxEvent | None:
    row = session.execute(_TAKE, {"seconds": seconds, "longest": _LONGEST}).mappings().one_or_none()
    return OutboxEvent(**row) if row else None


def _mark(session: Session, event_id: int) -> None:
    session.execute(_MARK, {"id": event_id})


def _forget(session: Session) -> int:
    return int(session.scalar(_FORGET, {"days": _KEPT_DAYS, "batch": _BATCH}) or 0)
