"""A job counts how its images ended, and the last one ends the job. Only this module writes these counts.

One statement can decide how the job ends because of the counts: it waits for the job's row and then reads them as the
statements before it left them. The images themselves it would see as they were when it began.

The end of a job is an event of the outbox (`shared.maintenance.outbox`): a trigger on the state writes its row.
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
        -- The images are read too, because processes of before revision 0005 do not count those that they end. Not by
        -- EXISTS: no plan comes to read all images that ever failed.
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
"""An UPDATE that counts `ended.images` images of a job that have ended as `:state`."""

_TAKE_DOWN = text(f"""
    {TAKE_DOWN.strip()}
    FROM (SELECT CAST(:images AS bigint) AS images) AS ended
    WHERE id = :job_id
""")


def take_down(session: Session, job_ids: Iterable[int], state: ImageState) -> None:
    """Count one image that has ended as `state` for each of `job_ids`, and end the jobs that have none left.

    Call it last before the commit, with the images locked. Jobs are locked by id; exactly one transaction ends each.
    """
    for job_id, images in sorted(Counter(job_ids).items()):
        session.execute(_TAKE_DOWN, {"job_id": job_id, "images": images, "state": state})
