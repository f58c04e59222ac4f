"""Why a job or an image cannot be changed: it does not exist, or its state does not allow it."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.tables import Job
from shared.errors import Conflict, NotFound

_STATES = text("""
    SELECT DISTINCT state
    FROM images
    WHERE job_id = :job_id
      AND (index = :index OR CAST(:index AS bigint) IS NULL)
    ORDER BY state
""")


def refusal(session: Session, job_id: int, index: int | None, moved: str) -> Conflict | NotFound:
    """Return why a job, or its image `index`, could not be `moved`."""
    states = session.execute(_STATES, {"job_id": job_id, "index": index}).scalars().all()
    if states:
        what = f"Job {job_id}" if index is None else f"Image {index} of job {job_id}"
        subject = "it is" if len(states) == 1 else "its images are"
        return Conflict(f"{what} cannot be {moved}: {subject} {' and '.join(states)}.")
    if index is None or not session.get(Job, job_id):
        return no_job(job_id)
    return NotFound(f"Job {job_id} has no image {index}.")


def no_job(job_id: int) -> NotFound:
    """Return the error for a job that does not exist."""
    return NotFound(f"There is no job {job_id}.")
