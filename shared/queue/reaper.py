"""Burial: a dead worker's row goes, its images go back to their lanes, and what killed three workers fails.

Lock order: workers by id, then model files by path, then images by id, then jobs by id. A worker that claims or beats
meanwhile waits, and then finds itself buried. Times are the database's own; no clock of a host is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.states import ImageState
from shared.models import catalogue
from shared.queue.history import Event, noted
from shared.queue.job_end import take_down

POISON_STRIKES = 3
POISON_REASON = "Its worker crashed three times while rendering it"

_LOCK = text("""
    SELECT id
    FROM workers
    WHERE id = :worker_id
    FOR UPDATE
""")

_PAST_LEASE = text("""
    SELECT id
    FROM workers
    WHERE lease_until < clock_timestamp()
      -- While the database was away nobody could renew a lease: everybody gets a whole one after its start.
      AND pg_postmaster_start_time() < clock_timestamp() - make_interval(secs => :lease_seconds)
    ORDER BY id
    -- What is locked is being renewed, claiming, or being buried by another.
    FOR UPDATE SKIP LOCKED
""")

# Index: ix_images_running.
_GIVE_BACK = noted(
    """
    taken AS (
        SELECT id, worker, strikes + :strike AS struck
        FROM images
        WHERE worker_id = ANY(:worker_ids)
        ORDER BY id
        FOR UPDATE
    ),
    moved AS (
        UPDATE images
        SET worker_id = NULL,
            strikes = struck,
            state = CASE WHEN struck >= :poison_strikes THEN 'failed' ELSE 'queued' END,
            reason = CASE WHEN struck >= :poison_strikes THEN :poison_reason END,
            worker = CASE WHEN struck >= :poison_strikes THEN images.worker END,
            ended_at = CASE WHEN struck >= :poison_strikes THEN clock_timestamp() END
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, attempt, taken.worker, state
    )
    """,
    "SELECT job_id, state FROM moved",
)

_REMOVE = text("""
    WITH gone AS (
        DELETE FROM workers
        WHERE id = ANY(:worker_ids)
        RETURNING name
    )
    INSERT INTO history (event, worker, detail)
    SELECT :event, name, :detail FROM gone
""")


def bury(  # noqa: PLR0913 - what is known of an end
    session: Session, worker_id: int, *, reason: str, strike: bool, note: str = "", files: Collection[str] = ()
) -> int:
    """Remove the worker and give its images back; return how many were queued again. 0: it was gone already.

    The `note` says what comes next, beside the reason. `strike` counts against each image that it ran: for the crash
    or hang of a process only, never for a lost lease. If it was loading model `files`, by SHA-256, these are struck in
    place of the images.
    """
    mine = session.scalars(_LOCK, {"worker_id": worker_id}).all()
    if strike and mine and files and catalogue.strike(session, files, reason):
        strike = False
    return _remove(session, mine, Event.BURIED, reason, strike=strike, note=note)


def leave(session: Session, worker_id: int) -> int:
    """Remove a worker that ends in order; return how many images it still had, which are queued again."""
    return _remove(session, session.scalars(_LOCK, {"worker_id": worker_id}).all(), Event.LEFT, None, strike=False)


def reap(session: Session, *, me_on_time: bool, lease_seconds: float) -> list[int]:
    """Bury the workers past their lease and return their ids.

    Nobody is buried by a reaper whose own beats were late (`me_on_time`): then it is the reaper, or its way to the
    database, that was away. A lost lease is no strike.
    """
    if not me_on_time:
        return []
    silent = session.scalars(_PAST_LEASE, {"lease_seconds": lease_seconds}).all()
    _remove(session, silent, Event.BURIED, "its lease ran out", strike=False)
    return list(silent)


def _remove(  # noqa: PLR0913 - what is known of an end
    session: Session, worker_ids: Sequence[int], event: Event, reason: str | None, *, strike: bool, note: str = ""
) -> int:
    if not worker_ids:
        return 0
    gone = {"worker_ids": list(worker_ids), "detail": f"{reason}; {note}" if note else reason}
    diagnosis = f"{POISON_REASON}; the last time {reason}."
    verdict = {"strike": int(strike), "poison_strikes": POISON_STRIKES, "poison_reason": diagnosis}
    given = session.execute(_GIVE_BACK, gone | verdict | {"event": Event.GIVEN_BACK}).all()
    session.execute(_REMOVE, gone | {"event": event})
    poisoned = [job_id for job_id, state in given if state == ImageState.FAILED]
    take_down(session, poisoned, ImageState.FAILED)
    return len(given) - len(poisoned)
