"""What an owner has used of their limits, what is left, and when it renews: a job that is too much is refused.

Submissions of one owner are counted one after the other, so that no two take the same room.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Final, NamedTuple, Self

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from shared.accounts import limit_rows
from shared.accounts.limits import LIMITS, NO_LIMITS, OwnerLimits
from shared.accounts.usage import TAKEN
from shared.admission.parse import refused
from shared.db.owner_locks import OwnerLock, lock_owner
from shared.db.states import ImageState
from shared.db.tables import Image
from shared.errors import FieldError
from shared.params.geometry import CELL
from shared.params.scheduling import utc_words
from shared.quantities import counted
from shared.queue.submit import Admission, cost, repeated

PREFIX: Final = "limits."
"""How the fields of refusals begin that name a limit."""


@dataclass(frozen=True)
class Asked:
    """What a job, or one that is opened again, would take of its owner's limits."""

    owner: str
    images: int
    work: int  # their cost
    request: str = ""  # its digest

    @classmethod
    def by(cls, admission: Admission) -> Self:
        """Return what a job would take that is not recorded yet."""
        images = admission.params.count
        cells = [cell.params for cell in admission.cells]
        work = sum(map(cost, cells)) if cells else images * cost(admission.params)
        return cls(admission.owner, images, work, admission.request)


class Used(NamedTuple):
    """What an owner uses now."""

    queued: int  # images that wait
    running: int
    daily_images: int  # finished today, or not yet
    daily_work: int
    monthly_gpu_seconds: int
    upload_mb: int
    tomorrow: datetime
    next_month: datetime


class Balance(NamedTuple):
    """A limit, and what of it is used."""

    name: str
    label: str
    limit: int
    used: int
    renews_at: datetime | None = None  # None: as images start and end

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)


# Indexes: ix_jobs_owner_state_id; ix_images_running, which has few rows, however long the queue.
_USED: Final = text(f"""
    WITH today AS (
        SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS day
    ),
    this_month AS (
        SELECT date_trunc('month', day)::date AS first_day FROM today
    ),
    taken AS (
        SELECT day, images, gpu_seconds
        FROM ({TAKEN}) AS ever
        WHERE owner = :owner
          AND day >= (SELECT first_day FROM this_month)
    ),
    open_ones AS (
        SELECT coalesce(sum(unfinished), 0)::bigint AS images FROM jobs WHERE owner = :owner AND state = 'open'
    ),
    running_ones AS (
        SELECT count(*) AS images FROM images WHERE worker_id IS NOT NULL AND owner = :owner
    )
    SELECT open_ones.images - running_ones.images AS queued,
           running_ones.images AS running,
           open_ones.images + (SELECT coalesce(sum(images), 0) FROM taken WHERE taken.day = today.day)::bigint
               AS daily_images,
           coalesce((SELECT work FROM owner_limits WHERE owner = :owner AND work_day = today.day), 0) AS daily_work,
           (SELECT ceil(coalesce(sum(gpu_seconds), 0)) FROM taken)::bigint AS monthly_gpu_seconds,
           (SELECT ceil(coalesce(sum(bytes), 0) / 1048576.0) FROM uploads WHERE owner = :owner)::bigint AS upload_mb,
           (today.day + 1)::timestamp AT TIME ZONE 'UTC' AS tomorrow,
           (this_month.first_day + interval '1 month') AT TIME ZONE 'UTC' AS next_month
    FROM today, this_month, open_ones, running_ones
""")  # noqa: S608 - a constant

# Kept in the row of the owner, so that it is neither lost with a deleted job nor given back by a cancelled one.
_COUNT_WORK: Final = text("""
    INSERT INTO owner_limits AS known (owner, work_day, work)
    VALUES (:owner, (clock_timestamp() AT TIME ZONE 'UTC')::date, :work)
    ON CONFLICT (owner) DO UPDATE
    SET work = CASE WHEN known.work_day = excluded.work_day THEN known.work ELSE 0 END + excluded.work,
        work_day = excluded.work_day
""")
_CELLS: Final = 10**6 / CELL**2  # of a megapixel


def balances(session: Session, owner: str, limits: OwnerLimits) -> list[Balance]:
    """Return each limit of an owner that is a number, with what is used of it now."""
    if limits == NO_LIMITS:
        return []
    now = Used(*session.execute(_USED, {"owner": owner}).one())
    now = now._replace(daily_work=ceil(now.daily_work / _CELLS))
    renewed = {"daily": now.tomorrow, "monthly": now.next_month}
    given = {name: getattr(limits, name) for name in now._fields if name in LIMITS}
    return [
        Balance(name, LIMITS[name].label, limit, getattr(now, name), renewed.get(name.partition("_")[0]))
        for name, limit in given.items()
        if limit is not None
    ]


def again(session: Session, owner: str, job_id: int, index: int | None) -> Asked:
    """Return what a job would take whose failed and cancelled images, or whose image `index`, are queued again."""
    wanted = [Image.job_id == job_id, Image.state.in_([ImageState.FAILED, ImageState.CANCELLED])]
    if index is not None:
        wanted.append(Image.index == index)
    counts = session.execute(select(func.count(), func.coalesce(func.sum(Image.cost), 0)).where(*wanted)).one()
    return Asked(owner, *counts)


def check(session: Session, asked: Asked, limits: OwnerLimits, idempotency_key: str | None = None) -> None:
    """Raise Refused if a job is more than is left to its owner, and let no other one in until this transaction ends.

    Workers learn how many images of the owner may run at once.

    A request that comes again under its key brings no other job.
    """
    if limits == NO_LIMITS and limits.is_told:
        return
    lock_owner(session, OwnerLock.LIMITS, asked.owner)  # before the owner's row, which both below change
    limit_rows.tell_workers(session, asked.owner, limits)
    if limits == NO_LIMITS:
        return
    if idempotency_key and repeated(session, asked.owner, idempotency_key, asked.request):
        return
    if problems := [*too_much(session, asked, limits)]:
        raise refused(problems)
    if limits.daily_work is not None:
        session.execute(_COUNT_WORK, {"owner": asked.owner, "work": asked.work})


def too_much(session: Session, asked: Asked, limits: OwnerLimits) -> Iterator[FieldError]:
    """Yield the limits that a job would pass."""
    for balance in balances(session, asked.owner, limits):
        if problem := _too_much(balance, asked):
            yield problem


def _too_much(balance: Balance, asked: Asked) -> FieldError | None:
    name, used, limit, left = balance.name, f"{balance.used:,}", f"{balance.limit:,}", f"{balance.left:,}"
    field, again = f"{PREFIX}{name}", utc_words(balance.renews_at) if balance.renews_at else ""
    images = counted(asked.images, "image")
    if name == "queued" and asked.images > balance.left:
        message = f"{counted(balance.used, 'image')} of at most {limit} wait, so there is no room for {images}"
        return FieldError(field, message, f"{left} now, and more as images start")
    if name == "daily_images" and asked.images > balance.left:
        message = f"{used} of {limit} images of today are rendered or wait, and this job has {images}"
        return FieldError(field, message, f"{left} today, and all of them again from {again}")
    if name == "daily_work" and (wanted := ceil(asked.work / _CELLS)) > balance.left:
        message = f"{used} of {limit} megapixel steps of today are taken, and this job has {wanted:,}"
        return FieldError(field, message, f"{left} today, and all of them again from {again}")
    if name == "monthly_gpu_seconds" and not balance.left:
        message = f"{used} of {limit} GPU seconds of this month are used"
        return FieldError(field, message, f"a job from {again} on")
    return None
