"""Dead workers: their rows go, their images are queued again, and an image that killed three workers fails.

Lock order: workers by id, then model files by path, then images by id, then jobs by id. A worker that claims or sends a
heartbeat meanwhile waits, and then learns that it was declared dead. Times are the database's own, not a host's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts.usage import CARD_SHARE_UNTIL, WRITE_USAGE
from shared.db.states import ImageState
from shared.models import recording
from shared.queue.history import Event, with_history
from shared.queue.job_end import take_down

MOST_CRASHES = 3
CRASHED_REASON = "Its worker crashed three times while rendering it"

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
    -- A locked worker renews its lease, claims, or is being declared dead by another process.
    FOR UPDATE SKIP LOCKED
""")

_LAST_BEAT: Final = "(SELECT beat_at FROM workers WHERE workers.id = images.worker_id)"
# What its images took of the card counts up to a worker's last sign of life. Index: ix_images_running.
_GIVE_BACK = with_history(
    f"""
    taken AS (
        SELECT id, worker, strikes + :crashes AS crashes,
               {CARD_SHARE_UNTIL.format(end=_LAST_BEAT)} AS gpu_seconds
        FROM images
        WHERE worker_id = ANY(:worker_ids)
        ORDER BY id
        FOR UPDATE
    ),
    moved AS (
        UPDATE images
        SET worker_id = NULL,
            strikes = crashes,
            state = CASE WHEN crashes >= :most_crashes THEN 'failed' ELSE 'queued' END,
            reason = CASE WHEN crashes >= :most_crashes THEN :crashed_reason END,
            worker = CASE WHEN crashes >= :most_crashes THEN images.worker END,
            ended_at = CASE WHEN crashes >= :most_crashes THEN clock_timestamp() END
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, attempt, taken.worker, state, owner, checkpoint, bytes, gpu_seconds
    ),
    {WRITE_USAGE.strip()}
    """,  # noqa: S608 - a constant
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


def mark_dead(  # noqa: PLR0913 - what is known of an end
    session: Session, worker_id: int, *, reason: str, crashed: bool, remark: str = "", files: Collection[str] = ()
) -> int:
    """Remove the worker and queue its images again; return how many. 0: it was gone already.

    The history says `remark`, what comes next, beside the reason. If its process `crashed` or hung, each image that it
    ran counts one crash; a lost lease is not a crash. If it was loading model `files`, by SHA-256, these count it in
    place of the images.
    """
    mine = session.scalars(_LOCK, {"worker_id": worker_id}).all()
    if crashed and mine and files and recording.count_crash(session, files, reason):
        crashed = False
    return _remove(session, mine, Event.MARKED_DEAD, reason, crashed=crashed, remark=remark)


def leave(session: Session, worker_id: int) -> int:
    """Remove a worker that ends in order and queue the images that it still had; return how many."""
    return _remove(session, session.scalars(_LOCK, {"worker_id": worker_id}).all(), Event.LEFT, None, crashed=False)


def reap(session: Session, *, me_on_time: bool, lease_seconds: float) -> list[int]:
    """Declare the workers past their lease dead and return their ids.

    A process whose own heartbeats were late (`me_on_time`) must not declare others dead: it, or its way to the
    database, may be what was away. A lost lease does not count as a crash.
    """
    if not me_on_time:
        return []
    silent = session.scalars(_PAST_LEASE, {"lease_seconds": lease_seconds}).all()
    _remove(session, silent, Event.MARKED_DEAD, "its lease ran out", crashed=False)
    return list(silent)


def _remove(  # noqa: PLR0913 - what is known of an end
    session: Session, worker_ids: Sequence[int], event: Event, reason: str | None, *, crashed: bool, remark: str = ""
) -> int:
    if not worker_ids:
        return 0
    gone = {"worker_ids": list(worker_ids), "detail": f"{reason}; {remark}" if remark else reason}
    diagnosis = f"{CRASHED_REASON}; the last time {reason}."
    verdict = {"crashes": int(crashed), "most_crashes": MOST_CRASHES, "crashed_reason": diagnosis}
    given = session.execute(_GIVE_BACK, gone | verdict | {"event": Event.GIVEN_BACK}).all()
    session.execute(_REMOVE, gone | {"event": event})
    poisoned = [job_id for job_id, state in given if state == ImageState.FAILED]
    take_down(session, poisoned, ImageState.FAILED)
    return len(given) - len(poisoned)
