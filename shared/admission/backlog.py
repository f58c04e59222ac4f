"""How many open jobs one owner may have, so that none fills the queue, its pages and its snapshots alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.states import JobState
from shared.db.tables import Job
from shared.errors import Conflict, FieldError
from shared.settings import Limits

FIELD: Final = "job"
_ADVICE: Final = "wait, or cancel some of them; the operator of this farm can raise FARM_MAX_OPEN_JOBS_PER_OWNER"


def too_many(session: Session, owner: str, limits: Limits) -> Iterator[FieldError]:
    """Yield the problem of an owner who has as many open jobs as one may have.

    Submissions that come at the same time may bring a few more. Index: ix_jobs_owner_state_id.
    """
    most = limits.max_open_jobs_per_owner
    counted = select(Job.id).where(Job.owner == owner, Job.state == JobState.OPEN).limit(most).subquery()
    if (session.scalar(select(func.count()).select_from(counted)) or 0) >= most:
        message = f"you have {most:,} jobs that have not ended, as many as one owner may have here"
        yield FieldError(FIELD, message, f"a new job once some of them have ended: {_ADVICE}")


def check(session: Session, owner: str, limits: Limits) -> None:
    """Raise Conflict if an owner has as many open jobs as one may have."""
    for problem in too_many(session, owner, limits):
        raise Conflict(f"This job cannot be opened again now: {problem.message}. To go on, {_ADVICE}.")
