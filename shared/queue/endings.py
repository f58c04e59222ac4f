"""The end of images: the one place that takes a job's `unfinished` down, and that ends a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.states import JobState

_TAKE_DOWN = text("""
    UPDATE jobs
    SET unfinished = unfinished - :images
    WHERE id = :job_id
    RETURNING unfinished
""")

# A statement of its own: it sees what other finishers committed while the one above waited for the job's row.
_END = text("""
    UPDATE jobs
    SET ended_at = clock_timestamp(),
        state = CASE
            WHEN EXISTS (SELECT FROM images WHERE job_id = :job_id AND state = 'failed') THEN 'failed'
            WHEN EXISTS (SELECT FROM images WHERE job_id = :job_id AND state = 'cancelled') THEN 'cancelled'
            ELSE 'succeeded'
        END
    WHERE id = :job_id
    RETURNING state
""")


def take_down(session: Session, job_ids: Iterable[int]) -> None:
    """Count one ended image for each of `job_ids`, and end the jobs that have none left.

    The last thing before the commit: the images are locked, jobs follow by id, and exactly one transaction sees zero.
    """
    for job_id, images in sorted(Counter(job_ids).items()):
        if session.execute(_TAKE_DOWN, {"job_id": job_id, "images": images}).scalar_one() == 0:
            end(session, job_id)


def end(session: Session, job_id: int) -> JobState:
    """End a job that has no unfinished image left, and return how: only who took the last one down calls this."""
    return JobState(session.execute(_END, {"job_id": job_id}).scalar_one())
