"""The sweep: takes away pictures that were stored after their job had been deleted, by a slot that did not know yet.

It goes by the fence, not by a clock: history tells which jobs were deleted, and a job's id never comes again.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.database import Sessions, transact
from shared.queue.history import Event
from shared.storage import Storage, job_prefix

# Index: job_id, id.
_DELETED = text("""
    SELECT DISTINCT job_id
    FROM history
    WHERE job_id = ANY(:job_ids)
      AND event = :event
      AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = history.job_id)
    ORDER BY job_id
""")


def sweep(sessions: Sessions, storage: Storage) -> list[int]:
    """Delete what is stored under deleted jobs and return their ids. Raises StorageError, Unavailable.

    Any number may run at a time; one that is interrupted has done a part.
    """
    swept = []
    for stored in storage.jobs():
        for job_id in transact(sessions, lambda session, stored=stored: _deleted(session, stored)):  # type: ignore[misc]
            storage.delete(job_prefix(job_id))
            swept.append(job_id)
    return swept


def _deleted(session: Session, job_ids: list[int]) -> list[int]:
    return list(session.scalars(_DELETED, {"job_ids": job_ids, "event": Event.DELETED}))
