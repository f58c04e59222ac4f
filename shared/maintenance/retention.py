"""Retention: deletes old jobs if the farm is set to, and old lines of history."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import Sessions, transact
from shared.errors import StorageError, TooSlow
from shared.media.storage import Storage, job_prefix
from shared.queue import transitions
from shared.queue.history import Event

log = structlog.get_logger(__name__)

_BATCH: Final = 1000
_SLOW: Final = 3  # jobs in a row: then the database is slow, and each further one would cost a statement's time

_OLD = """
    ended_at < clock_timestamp() - make_interval(days => :days)
"""
_OLD_JOBS = text(f"""
    SELECT id
    FROM jobs
    WHERE id > :after
      AND {_OLD}
    ORDER BY id
    LIMIT :batch
""")  # noqa: S608 - a constant

# A retry locks the images first too: either it comes first and the job is open again, or it finds no job.
_LOCK = text("SELECT id FROM images WHERE job_id = :job_id ORDER BY id FOR UPDATE")
_IS_OLD = text(f"SELECT EXISTS (SELECT FROM jobs WHERE id = :job_id AND {_OLD})")  # noqa: S608 - a constant

_FORGET = text("""
    WITH looked AS (
        SELECT id, job_id, event, at < clock_timestamp() - make_interval(days => :days) AS is_old
        FROM history
        WHERE id > :after
        ORDER BY id
        LIMIT :batch
    ),
    forgotten AS (
        DELETE FROM history
        USING looked
        WHERE history.id = looked.id
          AND looked.is_old
          -- Garbage collection knows deleted jobs by this line, however late a picture of one is stored.
          AND looked.event <> :deleted
          -- The failed attempts of its images decide about their next try.
          AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = looked.job_id AND jobs.state = 'open')
        RETURNING history.id
    )
    SELECT max(id) AS last, coalesce(bool_and(is_old), false) AS is_old, (SELECT count(*) FROM forgotten) AS forgotten
    FROM looked
""")


def delete_jobs(sessions: Sessions, storage: Storage, days: int) -> int:
    """Delete the jobs that ended more than `days` ago, with their pictures; return how many. Raises Unavailable.

    A job that is retried meanwhile stays. A job that takes too long is skipped until the next run, and after three such
    jobs in a row the run stops. Pictures that cannot be deleted now are left to garbage collection.
    """
    deleted, slow = 0, 0
    for job_id in _all_old_jobs(sessions, days):
        try:
            is_deleted = transact(sessions, partial(_delete, job_id=job_id, days=days))
        except TooSlow as error:  # one of its images is locked, or the disk is busy: the others can still be deleted
            log.warning("old job not deleted: skipped until the next run", job=job_id, reason=str(error.__cause__))
            slow += 1
            if slow == _SLOW:
                log.warning("old jobs not deleted: the database is slow", in_a_row=slow, deleted=deleted)
                break
            continue
        slow = 0
        if is_deleted:
            deleted += 1
            try:
                storage.delete(job_prefix(job_id))
            except StorageError as error:
                log.warning("pictures of a deleted job remain", job=job_id, reason=str(error))
    return deleted


def forget_history(sessions: Sessions, days: int) -> int:
    """Delete the lines of history that are older than `days`, and return how many. Raises Unavailable.

    Lines of open jobs stay, and so do the lines that name deleted jobs.
    """
    forgotten, after, is_old = 0, 0, True
    while is_old:
        some = transact(sessions, partial(_forget, days=days, after=after))
        forgotten, after, is_old = forgotten + some.forgotten, some.last, some.is_old
    return forgotten


def _forget(session: Session, days: int, after: int) -> Row[tuple[int, bool, int]]:
    return session.execute(_FORGET, {"days": days, "after": after, "batch": _BATCH, "deleted": Event.DELETED}).one()


def _all_old_jobs(sessions: Sessions, days: int) -> Iterator[int]:
    after = 0
    while ended := transact(sessions, partial(_old_jobs, days=days, after=after)):
        yield from ended
        after = ended[-1]


def _old_jobs(session: Session, days: int, after: int) -> list[int]:
    return list(session.scalars(_OLD_JOBS, {"days": days, "after": after, "batch": _BATCH}))


def _delete(session: Session, job_id: int, days: int) -> bool:
    """Delete a job unless it was deleted or retried meanwhile, which is checked with its images locked."""
    session.execute(_LOCK, {"job_id": job_id})
    if not session.scalar(_IS_OLD, {"job_id": job_id, "days": days}):
        return False
    transitions.delete(session, EVERYBODYS, job_id)
    return True
