"""The end of images: the one home of what takes a job's `unfinished` down and, with the last image, ends the job.

A job counts how its images ended. So one statement can tell how the job ends: it waits for the job's row and then has
the counts as the finishers before it left them, while the images themselves it would see as they were when it began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.states import ImageState

TAKE_DOWN: Final = """
    UPDATE jobs
    SET unfinished = unfinished - ended.images,
        failed = failed + CASE WHEN :state = 'failed' THEN ended.images ELSE 0 END,
        cancelled = cancelled + CASE WHEN :state = 'cancelled' THEN ended.images ELSE 0 END,
        ended_at = CASE WHEN unfinished = ended.images THEN clock_timestamp() END,
        -- The images are asked too, for what processes of before revision 0005 end without counting it. Not by EXISTS:
        -- no plan comes to read all images that ever failed.
        state = CASE
            WHEN unfinished > ended.images THEN jobs.state
            WHEN failed > 0 OR :state = 'failed' THEN 'failed'
            WHEN (SELECT true FROM images WHERE job_id = jobs.id AND images.state = 'failed' LIMIT 1) THEN 'failed'
            WHEN cancelled > 0 OR :state = 'cancelled' THEN 'cancelled'
            WHEN (SELECT true FROM images WHERE job_id = jobs.id AND images.state = 'cancelled' LIMIT 1)
            THEN 'cancelled'
            ELSE 'succeeded'
        END
"""
"""What counts `ended.images` images of a job that have ended as `:state`."""

_TAKE_DOWN = text(f"""
    {TAKE_DOWN.strip()}
    FROM (SELECT CAST(:images AS bigint) AS images) AS ended
    WHERE id = :job_id
""")


def take_down(session: Session, job_ids: Iterable[int], state: ImageState) -> None:
    """Count one image that has ended as `state` for each of `job_ids`, and end the jobs that have none left.

    The last thing before the commit: the images are locked, jobs follow by id, and exactly one transaction sees zero.
    """
    for job_id, images in sorted(Counter(job_ids).items()):
        session.execute(_TAKE_DOWN, {"job_id": job_id, "images": images, "state": state})
