"""What an owner has used of their limits, what is left, and when it renews: a job that is too much is refused.

Submissions of one owner are counted one after the other, so that no two take the same room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from shared.accounts.limits import NO_LIMITS, OwnerLimits
from shared.admission.parse import refused
from shared.db.owner_locks import OwnerLock, lock_owner
from shared.db.states import ImageState
from shared.db.tables import Image
from shared.errors import FieldError
from shared.quantities import counted
from shared.queue.submit import Admission, repeated

PREFIX: Final = "limits."
"""How the fields of refusals begin that name a limit."""


@dataclass(frozen=True)
class Asked:
    """What a job, or one that is opened again, would take of its owner's limits."""

    owner: str
    images: int
    request: str = ""  # its digest

    @classmethod
    def by(cls, admission: Admission) -> Self:
        """Return what a job would take that is not recorded yet."""
        return cls(admission.owner, admission.params.count, admission.request)


@dataclass(frozen=True)
class Used:
    """What an owner uses now."""

    queued: int  # images that wait


# Indexes: ix_jobs_owner_state_id; ix_images_running, which has few rows, however long the queue.
_USED: Final = text("""
    SELECT (SELECT coalesce(sum(unfinished), 0) FROM jobs WHERE owner = :owner AND state = 'open')
           - (SELECT count(*) FROM images WHERE worker_id IS NOT NULL AND owner = :owner) AS queued
""")


def used(session: Session, owner: str) -> Used:
    """Return what an owner uses now."""
    return Used(**session.execute(_USED, {"owner": owner}).mappings().one())


def again(session: Session, owner: str, job_id: int, index: int | None) -> Asked:
    """Return what a job would take whose failed and cancelled images, or whose image `index`, are queued again."""
    wanted = [Image.job_id == job_id, Image.state.in_([ImageState.FAILED, ImageState.CANCELLED])]
    if index is not None:
        wanted.append(Image.index == index)
    return Asked(owner, session.scalars(select(func.count()).where(*wanted)).one())


def check(session: Session, asked: Asked, limits: OwnerLimits, idempotency_key: str | None = None) -> None:
    """Raise Refused if a job is more than is left to its owner, and let no other one in until this transaction ends.

    A request that comes again under its key brings no other job.
    """
    if limits == NO_LIMITS:
        return
    lock_owner(session, OwnerLock.LIMITS, asked.owner)
    if idempotency_key and repeated(session, asked.owner, idempotency_key, asked.request):
        return
    if problems := [*too_much(session, asked, limits)]:
        raise refused(problems)


def too_much(session: Session, asked: Asked, limits: OwnerLimits) -> Iterator[FieldError]:
    """Yield the limits that a job would pass."""
    if limits == NO_LIMITS:
        return
    now = used(session, asked.owner)
    if limits.queued is not None and (left := max(0, limits.queued - now.queued)) < asked.images:
        yield FieldError(
            f"{PREFIX}queued",
            f"{counted(now.queued, 'image')} of yours of at most {limits.queued:,} wait, so there is no room for"
            f" {asked.images:,} more",
            f"{counted(left, 'image')} or fewer now, and more as images of yours start",
        )
