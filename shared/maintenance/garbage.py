"""Garbage collection: deletes objects of deleted jobs, of attempts that were never committed, and older contact sheets.

It follows the fence, not a clock. History names the deleted jobs, and a job id is never used again. An attempt is never
committed once the attempt number of its row is greater, or its image ended without it, because the number only rises.
So an object that may be deleted now may be deleted at any later time, also while images are stored, claimed or retried.
For contact sheets the end of the job is what the attempt is for images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, transact
from shared.media.storage import Storage, StoredObject, StoredSheet, job_prefix
from shared.queue.history import Event

_BATCH: Final = 1000
_Stored = TypeVar("_Stored", StoredObject, StoredSheet)

# Index: job_id, id.
_DELETED = text("""
    SELECT DISTINCT job_id
    FROM history
    WHERE job_id = ANY(:job_ids)
      AND event = :event
      AND NOT EXISTS (SELECT FROM jobs WHERE jobs.id = history.job_id)
    ORDER BY job_id
""")

# Index: job_id, index.
_FENCED_OFF = text("""
    SELECT position
    FROM unnest(CAST(:job_ids AS bigint[]), CAST(:indexes AS bigint[]), CAST(:attempts AS bigint[]))
        WITH ORDINALITY AS stored (job_id, index, attempt, position)
    JOIN images USING (job_id, index)
    WHERE stored.attempt < images.attempt
       -- A running attempt may be committed, a succeeded one is the picture; a greater one was claimed just now.
       OR (stored.attempt = images.attempt AND images.state NOT IN ('running', 'succeeded'))
""")


_REPLACED = text("""
    SELECT position
    FROM unnest(CAST(:job_ids AS bigint[]), CAST(:ends AS bigint[]))
        WITH ORDINALITY AS stored (job_id, end_id, position)
    JOIN sheets USING (job_id)
    WHERE stored.end_id < sheets.end_id
""")


def collect_jobs(sessions: Sessions, storage: Storage) -> list[int]:
    """Delete the objects of deleted jobs and return the ids of those jobs. Raises StorageError, Unavailable.

    Any number of processes may run it at a time; an interrupted run has done a part.
    """
    deleted = []
    for stored in storage.jobs():
        for job_id in transact(sessions, partial(_deleted, job_ids=stored)):
            storage.delete(job_prefix(job_id))
            deleted.append(job_id)
    return deleted


def collect_attempts(sessions: Sessions, storage: Storage) -> int:
    """Delete the objects of attempts that are fenced off; return how many. Raises StorageError, Unavailable.

    Any number of processes may run it at a time; an interrupted run has done a part.
    """
    return _discarded(sessions, storage, storage.objects(), _fenced_off)


def collect_sheets(sessions: Sessions, storage: Storage) -> int:
    """Delete the contact sheets that later ones have replaced; return how many. Raises StorageError, Unavailable."""
    return _discarded(sessions, storage, storage.sheets(), _replaced)


def _discarded(
    sessions: Sessions, storage: Storage, shelves: Iterable[list[_Stored]], garbage: Callable[..., list[_Stored]]
) -> int:
    deleted = 0
    for shelf in shelves:
        for start in range(0, len(shelf), _BATCH):
            some = shelf[start : start + _BATCH]
            for one in transact(sessions, partial(garbage, stored=some)):
                storage.discard(one)
                deleted += 1
    return deleted


def _deleted(session: Session, job_ids: list[int]) -> list[int]:
    return list(session.scalars(_DELETED, {"job_ids": job_ids, "event": Event.DELETED}))


def _fenced_off(session: Session, stored: Sequence[StoredObject]) -> list[StoredObject]:
    columns = {
        "job_ids": [one.job_id for one in stored],
        "indexes": [one.index for one in stored],
        "attempts": [one.attempt for one in stored],
    }
    return [stored[position - 1] for position in session.scalars(_FENCED_OFF, columns)]


def _replaced(session: Session, stored: Sequence[StoredSheet]) -> list[StoredSheet]:
    columns = {"job_ids": [one.job_id for one in stored], "ends": [one.end for one in stored]}
    return [stored[position - 1] for position in session.scalars(_REPLACED, columns)]
