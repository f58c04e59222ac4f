"""Holding by hand and letting go, for all images of a job. What lets go by itself is `shared.queue.deadlines`."""

from __future__ import annotations

from sqlalchemy import TextClause
from sqlalchemy.orm import Session

from shared.queue.conflicts import in_the_way
from shared.queue.history import Event, noted

_HOLD = noted(
    """
    taken AS (
        SELECT id
        FROM images
        WHERE job_id = :job_id
          AND state = 'queued'
        ORDER BY id
        FOR UPDATE
    ),
    moved AS (
        UPDATE images
        SET state = 'held',
            reason = :detail
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, attempt, worker
    )
    """,
    "SELECT count(*) FROM moved",
)


def hold(session: Session, job_id: int, *, by: str) -> int:
    """Keep the queued images of a job from being claimed until it is released; return how many.

    Raises NotFound, and Conflict when none is queued: what runs goes on, what is held already stays as it is.
    """
    reason = held_by(by)
    images: int = session.execute(_HOLD, {"job_id": job_id, "event": Event.HELD, "detail": reason}).scalar_one()
    if not images:
        raise in_the_way(session, job_id, None, "held")
    return images


def let_go(held: str, answer: str) -> TextClause:
    """Return the move that queues the held images that `held` selects and locks; `answer` reads it as `moved`."""
    return noted(
        f"""
        taken AS ({held}),
        moved AS (
            UPDATE images
            SET state = 'queued',
                reason = NULL,
                held_until = NULL,
                held_behind = NULL,
                -- It has not waited yet: affinity and stumbles count from now on.
                queued_at = clock_timestamp()
            FROM taken
            WHERE images.id = taken.id
            RETURNING images.id, job_id, attempt, worker, pool
        )
        """,  # noqa: S608 - constants of this package
        answer,
    )


_RELEASE = let_go(
    """
        SELECT id
        FROM images
        WHERE job_id = :job_id
          AND state = 'held'
        ORDER BY id
        FOR UPDATE
    """,
    "SELECT count(*) FROM moved",
)


def release(session: Session, job_id: int, *, by: str) -> int:
    """Queue the held images of a job, whatever holds them; return how many.

    Raises NotFound, and Conflict when none is held.
    """
    told = {"event": Event.RELEASED, "detail": f"by {by}"}
    images: int = session.execute(_RELEASE, {"job_id": job_id} | told).scalar_one()
    if not images:
        raise in_the_way(session, job_id, None, "released")
    return images


def held_by(owner: str) -> str:
    """Return the reason of what is held by hand."""
    return f"held by {owner}"
