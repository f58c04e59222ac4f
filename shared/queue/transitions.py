"""Transitions of images between their states, one function each: finish, fail, cancel, retry, delete, hand back.

The others are in `submit`, `holds`, `claim`, `deadlines` and `reaper`. Nothing else writes a state.

Every function takes a Session and never commits: run it with `shared.db.sessions.transact`. Those that people ask for
take the scope of who asks, and in the statement itself: what is somebody else's is not found.

Lock order, which keeps the farm free of deadlocks: workers by id (`claim`, `reaper`, `drains` and the heartbeat lock
them), then model files by path (`mark_dead`, which counts a crash against them), then images by id, then jobs by id,
nothing else. A transition of several images locks them by id first; `deadlines` waits for no image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import delete as delete_rows
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts.scope import OWNED, Scope
from shared.accounts.usage import CARD_SHARE, WRITE_USAGE
from shared.db.states import ImageState, JobState
from shared.db.storable import storable
from shared.db.tables import Job
from shared.errors import Conflict
from shared.quantities import counted
from shared.queue.claim import Claim
from shared.queue.conflicts import no_job, refusal
from shared.queue.history import Event, with_history
from shared.queue.job_end import TAKE_DOWN, take_down


class Finish(StrEnum):
    """What became of a claim's end."""

    COMMITTED = "committed"
    ALREADY_MINE = "already mine"  # the same attempt ended like this before: only the answer was lost
    REFUSED = "refused"  # the image was cancelled, given back or claimed again meanwhile


class Stored(NamedTuple):
    """A claim's picture, which is stored under its attempt's key."""

    claim: Claim
    bytes: int
    gpu_seconds: float | None = None  # that the attempt took of its card; None: its share of the time since its claim


@dataclass(frozen=True)
class Ended:
    """What became of a claim's end, and how its job has ended; None: it has images to come, or the end is refused."""

    finish: Finish
    job: JobState | None = None


@dataclass(frozen=True)
class Cancelled:
    """How many images a cancel ended, and the running ones: image id -> attempt, which a worker has to stop."""

    images: int
    running: dict[int, int]


# The fence: the attempt is still the row's, and it runs on the worker that claimed it.
_END = with_history(
    f"""
    given AS (
        SELECT *
        FROM unnest(
            CAST(:ids AS bigint[]), CAST(:attempts AS bigint[]), CAST(:workers AS bigint[]), CAST(:bytes AS bigint[]),
            CAST(:gpu_seconds AS float8[])
        ) AS given (id, attempt, worker_id, bytes, gpu_seconds)
    ),
    taken AS (
        SELECT images.id, given.bytes, coalesce(given.gpu_seconds, {CARD_SHARE}) AS gpu_seconds
        FROM given
        JOIN images ON images.id = given.id
        -- No index has a comparison of this kind: by id, not among all that the worker runs.
        WHERE (images.attempt, images.worker_id) IS NOT DISTINCT FROM (given.attempt, given.worker_id)
        ORDER BY images.id
        FOR UPDATE OF images
    ),
    moved AS (
        UPDATE images
        SET state = :state,
            worker_id = NULL,
            ended_at = clock_timestamp(),
            reason = :detail,
            bytes = taken.bytes
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, attempt, worker, owner, checkpoint, images.bytes, gpu_seconds
    ),
    {WRITE_USAGE.strip()},
    locked AS (
        SELECT jobs.id, ended.images
        FROM (SELECT job_id, count(*) AS images FROM moved GROUP BY job_id) AS ended
        JOIN jobs ON jobs.id = ended.job_id
        ORDER BY jobs.id
        FOR UPDATE OF jobs
    ),
    counted AS (
        {TAKE_DOWN.strip()}
        FROM locked AS ended
        WHERE jobs.id = ended.id
        RETURNING jobs.id, jobs.state
    )
    """,  # noqa: S608 - a constant
    "SELECT moved.id, attempt, counted.state AS job FROM moved JOIN counted ON counted.id = moved.job_id",
)

_MINE = text("""
    SELECT jobs.state
    FROM images
    JOIN jobs ON jobs.id = images.job_id
    WHERE images.id = :image_id
      AND attempt = :attempt
      AND images.state = :state
""")


def finish(session: Session, claim: Claim, picture_bytes: int) -> Ended:
    """End `claim`'s image with its picture, which is stored under this attempt's key."""
    [ended] = finish_all(session, [Stored(claim, picture_bytes)])
    return ended


def finish_all(session: Session, pictures: Sequence[Stored]) -> list[Ended]:
    """End the images of claims with their pictures; return what became of each, in their order.

    It is one statement, so the session may be one of `sessions.autocommit`.
    """
    return _end(session, pictures, ImageState.SUCCEEDED)


def fail(session: Session, claim: Claim, reason: str, gpu_seconds: float | None = None) -> Ended:
    """End `claim`'s image with the reason that people read."""
    [ended] = _end(session, [(claim, None, gpu_seconds)], ImageState.FAILED, reason=storable(reason))
    return ended


_EVENTS = {ImageState.SUCCEEDED: Event.FINISHED, ImageState.FAILED: Event.FAILED}


def _end(
    session: Session,
    ends: Sequence[tuple[Claim, int | None, float | None]],
    state: ImageState,
    *,
    reason: str | None = None,
) -> list[Ended]:
    claims = [claim for claim, _, _ in ends]
    fences = {
        "ids": [claim.image_id for claim in claims],
        "attempts": [claim.attempt for claim in claims],
        "workers": [claim.worker_id for claim in claims],
        "bytes": [picture_bytes for _, picture_bytes, _ in ends],
        "gpu_seconds": [gpu_seconds for _, _, gpu_seconds in ends],
    }
    change = {"state": state, "event": _EVENTS[state], "detail": reason}
    moved = {(row.id, row.attempt): JobState(row.job) for row in session.execute(_END, fences | change)}
    return [
        Ended(Finish.COMMITTED, _if_ended(job))
        if (job := moved.get((claim.image_id, claim.attempt)))
        else _ended_before(session, claim, state)
        for claim in claims
    ]


def _if_ended(job: JobState) -> JobState | None:
    return None if job == JobState.OPEN else job


def _ended_before(session: Session, claim: Claim, state: ImageState) -> Ended:
    """Return what became of a claim whose image does not run under it any more."""
    mine = {"image_id": claim.image_id, "attempt": claim.attempt, "state": state}
    job = session.execute(_MINE, mine).scalar_one_or_none()
    return Ended(Finish.REFUSED) if job is None else Ended(Finish.ALREADY_MINE, _if_ended(JobState(job)))


_CANCEL = with_history(
    f"""
    taken AS (
        SELECT id, state AS was, CASE WHEN state = 'running' THEN {CARD_SHARE} END AS gpu_seconds
        FROM images
        WHERE job_id = :job_id
          AND {OWNED}
          AND (index = :index OR CAST(:index AS bigint) IS NULL)
          AND state = ANY(CAST(:states AS text[]))
        ORDER BY id
        FOR UPDATE
    ),
    moved AS (
        UPDATE images
        SET state = 'cancelled',
            worker_id = NULL,
            ended_at = clock_timestamp(),
            reason = :detail,
            held_until = NULL,
            held_behind = NULL
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, attempt, worker, was, owner, checkpoint, bytes, gpu_seconds
    ),
    {WRITE_USAGE.strip()}
    """,  # noqa: S608 - a constant
    "SELECT id, attempt, was FROM moved ORDER BY id",
)


def cancel(  # noqa: PLR0913 - which images, and why
    session: Session,
    whose: Scope,
    job_id: int,
    index: int | None = None,
    *,
    only_waiting: bool = False,
    reason: str | None = None,
) -> Cancelled:
    """End the images of a job, or its image `index`, that have not ended, or of these only those that wait.

    A `reason` is for people, if nobody asked for it. Raises NotFound, and Conflict if there are none.
    """
    states = [ImageState.HELD, ImageState.QUEUED, *([] if only_waiting else [ImageState.RUNNING])]
    named = {"whose": whose.owner, "job_id": job_id, "index": index}
    rows = session.execute(_CANCEL, named | {"states": states, "event": Event.CANCELLED, "detail": reason}).all()
    if not rows:
        raise refusal(session, whose, job_id, index, "cancelled")
    take_down(session, [job_id] * len(rows), ImageState.CANCELLED)
    return Cancelled(len(rows), {row.id: row.attempt for row in rows if row.was == ImageState.RUNNING})


_RETRY = with_history(
    f"""
    taken AS (
        SELECT id, state AS was
        FROM images
        WHERE job_id = :job_id
          AND {OWNED}
          AND (index = :index OR CAST(:index AS bigint) IS NULL)
          AND state IN ('failed', 'cancelled')
        ORDER BY id
        FOR UPDATE
    ),
    moved AS (
        UPDATE images
        SET state = 'queued',
            strikes = 0,
            worker = NULL,
            reason = NULL,
            queued_at = clock_timestamp(),
            ended_at = NULL,
            -- Somebody wants it now: a deadline that has passed is over, one to come holds again.
            expires_at = CASE WHEN expires_at > clock_timestamp() THEN expires_at END
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, attempt, worker, was
    )
    """,  # noqa: S608 - a constant
    "SELECT count(*) AS images, count(*) FILTER (WHERE was = 'failed') AS failed FROM moved",
)

_REOPEN = text("""
    UPDATE jobs
    SET unfinished = unfinished + :images,
        failed = greatest(0, failed - :failed),
        cancelled = greatest(0, cancelled - (:images - :failed)),
        state = 'open',
        ended_at = NULL,
        -- A deadline that has passed is over, as for the images.
        expires_at = CASE WHEN expires_at > clock_timestamp() THEN expires_at END
    WHERE id = :job_id
""")


def retry(session: Session, whose: Scope, job_id: int, index: int | None = None) -> int:
    """Queue failed and cancelled images of a job, or its image `index`, again with their seeds; return how many.

    Crashes and deadlines that have passed are cleared, attempts go on rising; `dependencies.retry` also has a job wait
    for others again. Raises NotFound, and Conflict if no image has failed or was cancelled.
    """
    named = {"whose": whose.owner, "job_id": job_id, "index": index}
    images, failed = session.execute(_RETRY, named | {"event": Event.RETRIED, "detail": None}).one()
    if not images:
        raise refusal(session, whose, job_id, index, "retried")
    session.execute(_REOPEN, {"job_id": job_id, "images": images, "failed": failed})
    return int(images)


_ALL = text(f"SELECT state FROM images WHERE job_id = :job_id AND {OWNED} ORDER BY id FOR UPDATE")  # noqa: S608
_NOTE_DELETED = text(f"""
    INSERT INTO history (event, job_id, detail) SELECT :event, id, owner FROM jobs WHERE id = :job_id AND {OWNED}
""")  # noqa: S608 - a constant
# A job that comes to wait for this one locks it, so the statements after this one see all of those.
# Index: ix_jobs_after.
_LOCK_TO_DELETE = text(f"""
    SELECT id
    FROM jobs
    WHERE (id = :job_id OR waits AND after @> ARRAY[CAST(:job_id AS bigint)])
      AND {OWNED}
    ORDER BY id
    FOR UPDATE
""")  # noqa: S608 - a constant
# Nothing else tells those that wait for it. Index: ix_jobs_after.
_TELL_DELETED = text(f"""
    INSERT INTO outbox (at, kind, job_id, owner)
    SELECT clock_timestamp(), 'job_deleted', id, owner
    FROM jobs
    WHERE id = :job_id
      AND {OWNED}
      AND EXISTS (SELECT FROM jobs AS other WHERE other.waits AND other.after @> ARRAY[CAST(:job_id AS bigint)])
""")  # noqa: S608 - a constant
# A success counts, although it is deleted before all the others have come.
_COUNT_SUCCESS = text(f"""
    UPDATE jobs
    SET after = array_remove(after, :job_id)
    WHERE waits
      AND after @> ARRAY[CAST(:job_id AS bigint)]
      AND EXISTS (SELECT FROM jobs AS other WHERE other.id = :job_id AND other.state = 'succeeded')
      AND {OWNED}
""")  # noqa: S608 - a constant


def delete(session: Session, whose: Scope, job_id: int) -> None:
    """Remove a job and its images. Raises NotFound, and Conflict while an image runs: cancel it first."""
    named = {"whose": whose.owner, "job_id": job_id}
    states = session.execute(_ALL, named).scalars().all()
    if ImageState.RUNNING in states:
        running = counted(states.count(ImageState.RUNNING), "running image")
        raise Conflict(f"Job {job_id} has {running}: cancel it before you delete it.")
    session.execute(_LOCK_TO_DELETE, named)
    session.execute(_NOTE_DELETED, named | {"event": Event.DELETED})
    session.execute(_TELL_DELETED, named)
    session.execute(_COUNT_SUCCESS, named)
    deletes = delete_rows(Job).where(Job.id == job_id, whose.covers(Job.owner)).returning(Job.id)
    if not session.execute(deletes).scalars().all():
        raise no_job(job_id)


_HAND_BACK = with_history(
    f"""
    taken AS (
        SELECT id, attempt, worker, coalesce(CAST(:gpu_seconds AS float8), {CARD_SHARE}) AS gpu_seconds
        FROM images
        JOIN unnest(CAST(:ids AS bigint[]), CAST(:attempts AS bigint[])) AS given (image_id, given_attempt)
          ON given.image_id = images.id AND given.given_attempt = images.attempt
        WHERE worker_id = :worker_id
        ORDER BY id
        FOR UPDATE OF images
    ),
    moved AS (
        UPDATE images
        SET state = 'queued',
            attempt = greatest(images.attempt, :past),
            worker_id = NULL,
            worker = NULL,
            started_at = CASE WHEN :began THEN started_at END
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, taken.attempt, taken.worker, owner, checkpoint, bytes, gpu_seconds
    ),
    {WRITE_USAGE.strip()}
    """,  # noqa: S608 - a constant
    "SELECT count(*) FROM moved",
)


def hand_back(  # noqa: PLR0913 - what the history says beside it
    session: Session,
    worker_id: int,
    images: Mapping[int, int],
    *,
    reason: str | None = None,
    began: bool = True,
    past: int = 0,
    gpu_seconds: float | None = None,
) -> int:
    """Queue images (id -> attempt) that the worker will not finish; return how many it still had. No crash is counted.

    A `reason` says that the images themselves failed in a way that may pass: `history.failed_attempts` counts those.
    Images that never `began`, because the worker lacks what they need, keep their deadline, and their owner was not
    served. Attempts up to `past` are skipped: the storage has objects of theirs that this database does not know.
    `gpu_seconds`: what each took of the card; None: its share of the time since its claim.
    """
    images_handed: int = session.execute(
        _HAND_BACK,
        {
            "worker_id": worker_id,
            "ids": list(images),
            "attempts": list(images.values()),
            "event": Event.HANDED_BACK,
            "detail": reason and storable(reason),
            "began": began,
            "past": past,
            "gpu_seconds": gpu_seconds,
        },
    ).scalar_one()
    return images_handed
