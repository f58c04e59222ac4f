"""How many open jobs one owner may have, so that none fills the queue, its pages and its snapshots alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.errors import Conflict, FieldError
from shared.settings import Limits

FIELD: Final = "job"
_ADVICE: Final = "wait, or cancel some of them; the operator of this farm can raise FARM_MAX_OPEN_JOBS_PER_OWNER"

# Index: ix_jobs_owner_state_id.
_OPEN: Final = text("""
    SELECT count(*)
    FROM (SELECT FROM jobs WHERE owner = :owner AND state = 'open' LIMIT :most) AS counted
""")


def too_many(session: Session, owner: str, limits: Limits) -> Iterator[FieldError]:
    """Yield the problem of an owner who has as many open jobs as one may have.

    Submissions that come at the same time may bring a few more.
    """
    most = limits.max_open_jobs_per_owner
    if (session.scalar(_OPEN, {"owner": owner, "most": most}) or 0) >= most:
        message = f"you have {most:,} jobs that have not ended, as many as one owner may have here"
        yield FieldError(FIELD, message, f"a new job once some of them have ended: {_ADVICE}")


def check(session: Session, owner: str, limits: Limits) -> None:
    """Raise Conflict if an owner has as many open jobs as one may have."""
    for problem in too_many(session, owner, limits):
        raise Conflict(f"This job cannot be opened again now: {problem.message}. To go on, {_ADVICE}.")
