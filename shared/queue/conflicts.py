"""Why a job or an image cannot be changed: it does not exist, or its state does not allow it."""

from __future__ import annotations

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.accounts.scope import OWNED, Scope
from shared.db.tables import Job
from shared.errors import Conflict, NotFound

_STATES = text(f"""
    SELECT DISTINCT state
    FROM images
    WHERE job_id = :job_id
      AND {OWNED}
      AND (index = :index OR CAST(:index AS bigint) IS NULL)
    ORDER BY state
""")  # noqa: S608 - a constant


def refusal(session: Session, whose: Scope, job_id: int, index: int | None, moved: str) -> Conflict | NotFound:
    """Return why a job, or its image `index`, could not be `moved`."""
    named = {"whose": whose.owner, "job_id": job_id, "index": index}
    states = session.execute(_STATES, named).scalars().all()
    if states:
        what = f"Job {job_id}" if index is None else f"Image {index} of job {job_id}"
        subject = "it is" if len(states) == 1 else "its images are"
        return Conflict(f"{what} cannot be {moved}: {subject} {' and '.join(states)}.")
    if index is None or session.scalar(select(Job.id).where(Job.id == job_id, whose.covers(Job.owner))) is None:
        return no_job(job_id)
    return NotFound(f"Job {job_id} has no image {index}.")


def no_job(job_id: int) -> NotFound:
    """Return the error for a job that does not exist, or not for who asks."""
    return NotFound(f"There is no job {job_id}.")
