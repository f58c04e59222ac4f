"""The sweep: takes away what slots stored that did not know yet that their job, or their attempt, was over.

It goes by the fence, not by a clock. History tells which jobs were deleted, and a job's id never comes again. An
attempt that its image's row has passed by, or has ended without, is never committed: the attempt only rises, and does
so with the next claim. So what may go now may go for ever, whoever stores, claims or retries meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, transact
from shared.media.storage import Left, Storage, job_prefix
from shared.queue.history import Event

_BATCH: Final = 1000

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
       -- While it runs it may be committed, then it is the picture; a greater one was claimed just now.
       OR (stored.attempt = images.attempt AND images.state NOT IN ('running', 'succeeded'))
""")


def sweep(sessions: Sessions, storage: Storage) -> list[int]:
    """Delete what is stored under deleted jobs and return their ids. Raises StorageError, Unavailable.

    Any number may run at a time; one that is interrupted has done a part.
    """
    swept = []
    for stored in storage.jobs():
        for job_id in transact(sessions, partial(_deleted, job_ids=stored)):
            storage.delete(job_prefix(job_id))
            swept.append(job_id)
    return swept


def sweep_attempts(sessions: Sessions, storage: Storage) -> int:
    """Delete what attempts left that are fenced off, and return how many objects. Raises StorageError, Unavailable.

    Any number may run at a time; one that is interrupted has done a part.
    """
    swept = 0
    for shelf in storage.left():
        for start in range(0, len(shelf), _BATCH):
            some = shelf[start : start + _BATCH]
            for left in transact(sessions, partial(_fenced_off, stored=some)):
                storage.discard(left)
                swept += 1
    return swept


def _deleted(session: Session, job_ids: list[int]) -> list[int]:
    return list(session.scalars(_DELETED, {"job_ids": job_ids, "event": Event.DELETED}))


def _fenced_off(session: Session, stored: Sequence[Left]) -> list[Left]:
    columns = {
        "job_ids": [left.job_id for left in stored],
        "indexes": [left.index for left in stored],
        "attempts": [left.attempt for left in stored],
    }
    return [stored[position - 1] for position in session.scalars(_FENCED_OFF, columns)]
