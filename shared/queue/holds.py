"""A job's images are held and released by hand. `shared.queue.deadlines` releases those whose time has come."""

from __future__ import annotations

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from shared.accounts.scope import OWNED, Scope
from shared.queue.conflicts import refusal
from shared.queue.history import Event, with_history


def hold_statement(held: str) -> TextClause:
    """Return a statement that holds the images that `held` selects and locks until released, and counts them."""
    return with_history(
        f"""
        taken AS ({held}),
        moved AS (
            UPDATE images
            SET state = 'held',
                reason = :detail,
                held_until = NULL,
                held_behind = NULL
            FROM taken
            WHERE images.id = taken.id
            RETURNING images.id, job_id, attempt, worker
        )
        """,  # noqa: S608 - constants of this package
        "SELECT count(*) FROM moved",
    )


_HOLD = hold_statement(
    f"""
        SELECT id
        FROM images
        WHERE job_id = :job_id
          AND {OWNED}
          -- An image that was held for other jobs is held by hand from now on.
          AND (state = 'queued' OR state = 'held' AND (SELECT jobs.waits FROM jobs WHERE jobs.id = :job_id))
        ORDER BY id
        FOR UPDATE
    """  # noqa: S608 - a constant
)

_WAITS_NO_MORE = text("UPDATE jobs SET waits = false WHERE id = :job_id AND waits")


def hold(session: Session, whose: Scope, job_id: int, *, by: str) -> int:
    """Hold the queued images of a job, and those that wait for other jobs, until it is released; return how many.

    It waits for no job any more. Running images go on, and those held otherwise stay as they are. Raises NotFound, and
    Conflict if there are none.
    """
    given = {"whose": whose.owner, "job_id": job_id, "event": Event.HELD, "detail": held_by(by)}
    images: int = session.execute(_HOLD, given).scalar_one()
    if not images:
        raise refusal(session, whose, job_id, None, "held")
    session.execute(_WAITS_NO_MORE, {"job_id": job_id})
    return images


def release_statement(held: str, answer: str) -> TextClause:
    """Return a statement that queues the images that `held` selects and locks; `answer` reads them as `moved`."""
    return with_history(
        f"""
        taken AS ({held}),
        moved AS (
            UPDATE images
            SET state = 'queued',
                reason = NULL,
                held_until = NULL,
                held_behind = NULL,
                -- It has not waited yet: affinity and failed attempts count from now on.
                queued_at = clock_timestamp()
            FROM taken
            WHERE images.id = taken.id
            RETURNING images.id, job_id, attempt, worker, pool
        )
        """,  # noqa: S608 - constants of this package
        answer,
    )


_RELEASE = release_statement(
    f"""
        SELECT id
        FROM images
        WHERE job_id = :job_id
          AND {OWNED}
          AND state = 'held'
        ORDER BY id
        FOR UPDATE
    """,  # noqa: S608 - a constant
    "SELECT count(*) FROM moved",
)


def release(session: Session, whose: Scope, job_id: int, *, by: str) -> int:
    """Queue all held images of a job, for whatever reason they are held; return how many.

    Raises NotFound, and Conflict if no image is held.
    """
    given = {"whose": whose.owner, "job_id": job_id, "event": Event.RELEASED, "detail": f"by {by}"}
    images: int = session.execute(_RELEASE, given).scalar_one()
    if not images:
        raise refusal(session, whose, job_id, None, "released")
    session.execute(_WAITS_NO_MORE, {"job_id": job_id})
    return images


def held_by(owner: str) -> str:
    """Return the reason that people read of images held by hand."""
    return f"held by {owner}"
