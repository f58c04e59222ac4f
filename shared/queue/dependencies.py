"""Jobs that wait for others: held until these have ended, or succeeded, then queued; cancelled if that cannot be.

An event of the outbox settles who waited for a job that has ended or was deleted (`shared.maintenance.dependencies`).
A job is submitted, and changed, with a lock on those that it waits for: none of them ends unseen in between.

`Job.waits` says that its held images are held for others. It is taken away once, by the one that releases them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS, OWNED, Scope
from shared.db.owner_locks import OwnerLock, lock_owner
from shared.db.states import ImageState, JobState
from shared.db.tables import Job
from shared.errors import Conflict, FieldError, NotFound, Refused
from shared.params.scheduling import DependsOn
from shared.queue import queries, transitions
from shared.queue.history import Event
from shared.queue.holds import hold_statement, release_statement

ACCEPTED: Final = "up to 100 ids of your jobs, none of which waits for this one"


def _locked(states: str) -> str:
    """Return SQL that locks the images of a job in some states, in the order in which all moves lock them."""
    return f"SELECT id FROM images WHERE job_id = :job_id AND state IN ({states}) ORDER BY id FOR UPDATE"  # noqa: S608


@dataclass(frozen=True)
class Settled:
    """What became of a job that waited; tickets and events go out after the commit."""

    job_id: int
    state: ImageState | None = None  # that it is displayed in; None: it goes on waiting
    queued: Mapping[str, int] = field(default_factory=dict)  # pool -> images that can be claimed now


def problems(session: Session, owner: str, after: Collection[int], on: DependsOn) -> list[FieldError]:
    """Return why a job cannot wait for these jobs of its owner."""
    found = _states(session, owner, after)
    unknown = [job_id for job_id in after if job_id not in found]
    if unknown:
        return [FieldError("after", f"there is no job {unknown[0]}", ACCEPTED)]
    hopeless = [job_id for job_id in after if _is_hopeless(found[job_id], on)]
    if hopeless:
        why = f"{_fate(hopeless[0], found[hopeless[0]])}, so this one would never start"
        return [FieldError("after", why, 'jobs that may still succeed, or "on": "end"')]
    return []


_LOCK_JOBS = text("SELECT id FROM jobs WHERE id = ANY(CAST(:jobs AS bigint[])) ORDER BY id FOR NO KEY UPDATE")


def open_ones(
    session: Session, owner: str, after: Collection[int], on: DependsOn, waiting: int | None = None
) -> list[int]:
    """Return those of the jobs that have not ended, and lock all, with the one that is `waiting` for them if it is not
    new: jobs are locked by id. Raises Refused if it cannot wait for them.
    """
    if not after:
        return []
    session.execute(_LOCK_JOBS, {"jobs": [*after, waiting]})
    if wrong := problems(session, owner, after, on):
        raise Refused(f"The job cannot wait for others: {wrong[0].message}.", tuple(wrong))
    found = _states(session, owner, after)
    return [job_id for job_id in after if found[job_id] == JobState.OPEN]


def held_for(jobs: Iterable[int], on: DependsOn) -> str:
    """Return the reason that people read of images held for these jobs."""
    numbers = ", ".join(map(str, jobs))
    return (
        f"held until these jobs have ended: {numbers}" if on == "end" else f"held until these jobs succeed: {numbers}"
    )


# Index: ix_jobs_after.
_WAITING = text(f"""
    SELECT id
    FROM jobs
    WHERE waits
      AND state = 'open'
      AND after @> ARRAY[CAST(:job_id AS bigint)]
      AND {OWNED}
    ORDER BY id
""")  # noqa: S608 - a constant


def waiting_for(session: Session, whose: Scope, job_id: int) -> list[int]:
    """Return the jobs that wait for a job, which may be gone."""
    return list(session.scalars(_WAITING, {"whose": whose.owner, "job_id": job_id}))


# Index: ix_jobs_waits.
_FREED = text("SELECT id FROM jobs WHERE waits AND state = 'open' AND after = '{}' ORDER BY id")


def freed(session: Session) -> list[int]:
    """Return the jobs that still wait although all that they waited for has succeeded and was deleted."""
    return list(session.scalars(_FREED))


# Jobs that nobody settled: an older process delivered the event, or deleted a job. Index: ix_jobs_waits.
_OVERDUE = text("""
    SELECT id
    FROM jobs AS job
    WHERE waits
      AND state = 'open'
      AND (
          NOT EXISTS (SELECT FROM jobs AS before WHERE before.id = ANY(job.after) AND before.state = 'open')
          OR after_on = 'success' AND EXISTS (
              SELECT
              FROM unnest(job.after) AS wanted (id)
              LEFT JOIN jobs AS before ON before.id = wanted.id
              WHERE before.state IS NULL OR before.state NOT IN ('open', 'succeeded')
          )
      )
    ORDER BY id
    LIMIT :most
""")


def overdue(session: Session, most: int) -> list[int]:
    """Return up to so many jobs that wait although what they wait for has ended, or cannot succeed any more."""
    return list(session.scalars(_OVERDUE, {"most": most}))


_BEFORE = text("""
    SELECT wanted.id, before.state, job.after_on
    FROM jobs AS job
    LEFT JOIN LATERAL unnest(job.after) AS wanted (id) ON true
    LEFT JOIN jobs AS before ON before.id = wanted.id
    WHERE job.id = :job_id
      AND job.waits
      AND job.state = 'open'
    ORDER BY wanted.id
""")

# Moves that hold, release or change the job lock these first, so all that is read after them stays so until the
# commit.
_LOCK_HELD = text(_locked("'held'"))
_RELEASE = release_statement(
    """
        SELECT images.id
        FROM images
        JOIN jobs ON jobs.id = images.job_id
        WHERE job_id = :job_id
          AND images.state = 'held'
          AND jobs.waits
        ORDER BY images.id
        FOR UPDATE OF images
    """,
    "SELECT pool, count(*) AS images FROM moved GROUP BY pool",
)
_WAITS_NO_MORE = text("UPDATE jobs SET waits = false WHERE id = :job_id AND waits")


def settle(session: Session, job_id: int) -> Settled:
    """Queue what a job has waiting if all that it waits for has ended; cancel it if one of them can no longer succeed.

    Safe to do again, and by several at once.
    """
    if _verdict(session, job_id) is None:
        return Settled(job_id)
    session.execute(_LOCK_HELD, {"job_id": job_id})
    verdict = _verdict(session, job_id)
    if verdict is None:
        return Settled(job_id)
    queued: dict[str, int] = {}
    if verdict.hopeless is None:
        queued = _release(session, job_id, "what it waited for has ended")
    else:
        with suppress(Conflict, NotFound):  # none of its images waits any more
            transitions.cancel(session, EVERYBODYS, job_id, only_waiting=True, reason=verdict.hopeless)
        session.execute(_WAITS_NO_MORE, {"job_id": job_id})
    return Settled(job_id, queries.states(session, EVERYBODYS, [job_id]).get(job_id), queued)


@dataclass(frozen=True)
class _Verdict:
    hopeless: str | None  # why it can never start; None: it can now


def _verdict(session: Session, job_id: int) -> _Verdict | None:
    """Return what is to become of a job that waits; None: it goes on waiting, or does not wait."""
    rows = session.execute(_BEFORE, {"job_id": job_id}).all()
    before: list[Row[Any]] = [row for row in rows if row.id is not None]
    for row in before:
        if _is_hopeless(row.state, row.after_on):
            return _Verdict(f"{_fate(row.id, row.state)}, and it waited for that")
    if not rows or any(row.state == JobState.OPEN for row in before):
        return None
    return _Verdict(None)


def _release(session: Session, job_id: int, why: str) -> dict[str, int]:
    """Queue what is held for others; return how many images of each pool."""
    moved = session.execute(_RELEASE, {"job_id": job_id, "event": Event.RELEASED, "detail": why}).all()
    session.execute(_WAITS_NO_MORE, {"job_id": job_id})
    return {row.pool: row.images for row in moved}


# What a job waits for, and what that waits for, and so on: does it lead back to the job?
_CIRCLE = text("""
    WITH RECURSIVE before (id, first) AS (
        SELECT id, id FROM unnest(CAST(:after AS bigint[])) AS given (id)
        UNION
        SELECT edge.id, before.first
        FROM before
        JOIN jobs ON jobs.id = before.id
        CROSS JOIN LATERAL (
            SELECT unnest(jobs.after) AS id WHERE jobs.waits
            UNION ALL
            SELECT held_behind FROM images WHERE job_id = jobs.id AND images.state = 'held' AND held_behind IS NOT NULL
        ) AS edge
        WHERE jobs.state = 'open'
    )
    SELECT first FROM before WHERE id = :job_id ORDER BY first LIMIT 1
""")
_LOCK_IMAGES = text(f"SELECT id FROM images WHERE job_id = :job_id AND {OWNED} ORDER BY id FOR UPDATE")  # noqa: S608


def lock_images(session: Session, whose: Scope, job_id: int) -> None:
    """Lock all images of a job, before the lock of its owner: behind that no image may be locked.

    Who held one, and waited for the owner's lock, would wait for ever. Of all states, because an image that another has
    cancelled or handed back meanwhile would be locked behind it.
    """
    session.execute(_LOCK_IMAGES, {"whose": whose.owner, "job_id": job_id})


_HOLD = hold_statement(_locked("'held', 'queued'"))
_SET = text("UPDATE jobs SET after = :after, after_on = :on, waits = :waits WHERE id = :job_id")


def change(session: Session, job_id: int, after: tuple[int, ...] | None, on: DependsOn | None) -> None:
    """Have what waits of a job wait for other jobs from now on; None leaves it as it is, and no jobs release it.

    Takes the place of what held it before. The caller has locked its images. Raises Refused, also where the jobs would
    wait for each other.
    """
    owner = session.get_one(Job, job_id).owner
    lock_owner(session, OwnerLock.DEPENDENCIES, owner)  # two at a time could close a circle
    job = session.get_one(Job, job_id, populate_existing=True)
    wanted: Any = tuple(job.after) if after is None else after
    when: Any = on or job.after_on
    if (first := session.scalar(_CIRCLE, {"after": list(wanted), "job_id": job_id})) is not None:
        problem = "a job cannot wait for itself" if first == job_id else f"job {first} waits for this one"
        raise Refused(f"The job cannot wait for others: {problem}.", (FieldError("after", problem, ACCEPTED),))
    waits_for = open_ones(session, owner, wanted, when, job_id)
    if waits_for:
        session.execute(_HOLD, {"job_id": job_id, "event": Event.HELD, "detail": held_for(waits_for, when)})
    elif job.waits:
        _release(session, job_id, "it waits for no other job")
    session.execute(_SET, {"job_id": job_id, "after": list(wanted), "on": when, "waits": bool(waits_for)})


_WAITED = text(f"SELECT owner, after FROM jobs WHERE id = :job_id AND waits AND {OWNED}")  # noqa: S608 - a constant
_IS_ANY_HELD = text("SELECT EXISTS (SELECT FROM images WHERE job_id = :job_id AND state = 'held')")
_HOLD_RETRIED = hold_statement(_locked("'queued'"))


def retry(session: Session, whose: Scope, job_id: int, index: int | None = None) -> int:
    """Do as `transitions.retry`, but what was cancelled while it waited for other jobs waits for them again.

    It is queued if they have ended: a person who retries it then wants it now, also where one of them has failed. So
    it is if one of them waits for this job by now.
    """
    named = {"whose": whose.owner, "job_id": job_id}
    waited = session.execute(_WAITED, named).one_or_none()
    if waited is None:
        return transitions.retry(session, whose, job_id, index)
    lock_images(session, whose, job_id)
    lock_owner(session, OwnerLock.DEPENDENCIES, waited.owner)  # it may close a circle
    session.execute(_LOCK_JOBS, {"jobs": [*waited.after, job_id]})
    images = transitions.retry(session, whose, job_id, index)
    before = session.execute(_BEFORE, named).all()
    open_jobs = [row.id for row in before if row.state == JobState.OPEN]
    is_hopeless = any(_is_hopeless(row.state, row.after_on) for row in before)
    can_wait = bool(open_jobs) and not is_hopeless and session.scalar(_CIRCLE, named | {"after": open_jobs}) is None
    # Held images wait already, and those that come back share their end.
    if before and (can_wait or session.scalar(_IS_ANY_HELD, named)):
        why = held_for(open_jobs or waited.after, before[0].after_on)
        session.execute(_HOLD_RETRIED, named | {"event": Event.HELD, "detail": why})
    else:
        session.execute(_WAITS_NO_MORE, named)
    return images


def _states(session: Session, owner: str, jobs: Collection[int]) -> dict[int, str]:
    rows = session.execute(select(Job.id, Job.state).where(Job.id.in_(jobs), Job.owner == owner))
    return {job_id: str(state) for job_id, state in rows}


def _is_hopeless(state: str | None, on: DependsOn) -> bool:
    """Return whether a job of this state (None: deleted) ends no wait for its success."""
    return on == "success" and state not in {JobState.OPEN, JobState.SUCCEEDED}


def _fate(job_id: int, state: str | None) -> str:
    """Return how a job ended without success, in words; None: it was deleted."""
    match state:
        case JobState.FAILED:
            return f"job {job_id} has failed"
        case JobState.CANCELLED:
            return f"job {job_id} was cancelled"
        case None:
            return f"job {job_id} was deleted"
    return f"job {job_id} has ended as {state}"
