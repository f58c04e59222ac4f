"""What can be done with the farm over HTTP, one function each: the JSON routes and the pages call the same ones.

Each opens its own transaction; messages to workers and pages go out after the commit. `owner` is who asks: what is
somebody else's is NotFound.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from api.listings import CheckpointsBody, WorkersBody
from api.representations import ChangeBody, DisplayState, JobBody, JobPageBody
from api.services import Services
from shared import catalogue, door
from shared.database import transact
from shared.errors import Conflict, NotFound, Refused, StorageError
from shared.events import JobChanged
from shared.params import RenderParams
from shared.queue import moves, views
from shared.queue.policy import DEFAULT_POOL
from shared.queue.submit import repeated
from shared.queue.submit import submit as record
from shared.states import ImageState
from shared.storage import Kind, job_prefix, key
from shared.tables import Image, Job

log = structlog.get_logger(__name__)

_WAIT_SECONDS: Final = 0.2  # between two looks at a job that is waited for


@dataclass(frozen=True)
class Submitted:
    """The job that a submission led to; not new where the same request had come before under its key."""

    job: JobBody
    is_new: bool


@dataclass(frozen=True)
class Stored:
    """Bytes of an image that never change; read when they are needed."""

    services: Services
    key: str

    @property
    def tag(self) -> str:
        """What tells these bytes from all others: job, index and attempt."""
        return self.key.rpartition("/")[2]

    def read(self) -> bytes:
        """Return the bytes. Raises NotFound, StorageError."""
        return self.services.storage.get(self.key)


def submit(services: Services, owner: str, given: object, idempotency_key: str | None = None) -> Submitted:
    """Record a job of what was given, a JSON object as it came, and publish its tickets.

    Raises Refused naming every bad field, Conflict on a key used otherwise.
    """
    asked = _parsed(given)

    def work(session: Session) -> tuple[views.JobView, bool]:
        submission = repeated(session, owner, idempotency_key, asked) if idempotency_key and asked else None
        if submission is None:  # one that comes again is not refused for what has changed since
            params, checkpoint = door.admit(session, asked or given, services.settings.limits)
            submission = record(
                session, owner, params, checkpoint=checkpoint, idempotency_key=idempotency_key, asked=asked
            )
        return views.job(session, submission.job.id, owner), submission.is_new

    view, is_new = transact(services.sessions, work)
    if is_new:
        services.tickets.publish(DEFAULT_POOL, view.params.count)
    return Submitted(JobBody.of(view, {}), is_new)  # Redis is not asked: it never slows the door down


def job(services: Services, owner: str, job_id: int) -> JobBody:
    """Return a job with the latest progress of its images. Raises NotFound."""
    view = transact(services.sessions, lambda session: views.job(session, job_id, owner))
    return JobBody.of(view, services.events.progress(job_id))


def state(services: Services, owner: str, job_id: int) -> ImageState:
    """Return a job's state alone, which reads none of its images. Raises NotFound."""
    return transact(services.sessions, lambda session: views.state(session, job_id, owner))


def wait(services: Services, owner: str, job_id: int, seconds: float) -> tuple[JobBody, bool]:
    """Return a job when it has ended or `seconds` have passed, and whether it was waited for at all.

    Waiting takes a thread, so only some may wait at a time; the others look again on their own.
    """
    if not services.waits.acquire(blocking=False):
        return job(services, owner, job_id), False
    try:
        end = time.monotonic() + seconds
        while not (seen := job(services, owner, job_id)).is_final and time.monotonic() < end:
            if services.stopping.wait(_WAIT_SECONDS):
                break
        return seen, True
    finally:
        services.waits.release()


def jobs(services: Services, owner: str, states: Sequence[DisplayState], cursor: int | None, limit: int) -> JobPageBody:
    """Return a page of the owner's jobs, the latest first."""
    shown = [ImageState(state) for state in states]
    page = transact(services.sessions, lambda session: views.jobs(session, owner, shown, cursor, limit))
    return JobPageBody.of(page, services.events.progress)


def cancel(services: Services, owner: str, job_id: int, index: int | None = None) -> ChangeBody:
    """Cancel what has not ended of a job, or one image, and tell the workers. Raises NotFound, Conflict."""

    def work(session: Session) -> tuple[moves.Cancelled, views.JobView]:
        _own(session, owner, job_id)
        return moves.cancel(session, job_id, index), views.job(session, job_id, owner)

    cancelled, view = transact(services.sessions, work)
    services.events.announce_cancel(cancelled.running)
    return _changed(services, view, cancelled.images)


def retry(services: Services, owner: str, job_id: int, index: int | None = None) -> ChangeBody:
    """Put failed and cancelled images back, with tickets. Raises NotFound, Conflict."""

    def work(session: Session) -> tuple[int, views.JobView]:
        _own(session, owner, job_id)
        return moves.retry(session, job_id, index), views.job(session, job_id, owner)

    images, view = transact(services.sessions, work)
    services.tickets.publish(DEFAULT_POOL, images)
    return _changed(services, view, images)


def delete(services: Services, owner: str, job_id: int) -> None:
    """Remove a job, and then its pictures. Raises NotFound, Conflict while an image runs.

    Where the storage is away the pictures stay: the job is gone by then, so that asking again would not help.
    """

    def work(session: Session) -> None:
        _own(session, owner, job_id)
        moves.delete(session, job_id)

    transact(services.sessions, work)
    try:
        services.storage.delete(job_prefix(job_id))
    except StorageError as error:
        log.warning("pictures of a deleted job remain", job=job_id, prefix=job_prefix(job_id), reason=str(error))


def stored(services: Services, owner: str, job_id: int, index: int, kind: Kind) -> Stored:
    """Return the committed picture of an image, or its thumbnail. Raises NotFound."""

    def work(session: Session) -> int | None:
        _own(session, owner, job_id)
        return session.scalar(
            select(Image.attempt).where(
                Image.job_id == job_id, Image.index == index, Image.state == ImageState.SUCCEEDED
            )
        )

    attempt = transact(services.sessions, work)
    if attempt is None:
        raise NotFound(f"Job {job_id} has no picture {index}, or not yet.")
    return Stored(services, key(job_id, index, attempt, kind))


def pictures(services: Services, owner: str, job_id: int) -> Iterator[tuple[str, bytes]]:
    """Return the names and bytes of a job's pictures, each read when its turn comes. Raises NotFound, Conflict."""

    def work(session: Session) -> Sequence[Row[int, int]]:
        _own(session, owner, job_id)
        done = select(Image.index, Image.attempt).where(Image.job_id == job_id, Image.state == ImageState.SUCCEEDED)
        return session.execute(done.order_by(Image.index)).all()

    done = transact(services.sessions, work)
    if not done:
        raise Conflict(f"Job {job_id} has no finished picture yet.")
    return (
        (f"{job_id}-{index:04}.png", services.storage.get(key(job_id, index, attempt, "picture")))
        for index, attempt in done
    )


def preview(services: Services, owner: str, job_id: int, index: int) -> bytes:
    """Return what a running image looks like so far. Raises NotFound while there is nothing to see."""
    transact(services.sessions, lambda session: _own(session, owner, job_id))
    data = services.events.preview(job_id, index)
    if data is None:
        raise NotFound(f"Image {index} of job {job_id} has no preview now.")
    return data


def checkpoints(services: Services) -> CheckpointsBody:
    """Return the catalogue."""
    return CheckpointsBody.of(transact(services.sessions, catalogue.entries))


def rescan(services: Services) -> None:
    """Have the workers look into the models folder now; without Redis they do so within seconds anyway."""
    services.events.announce_rescan()


def workers(services: Services) -> WorkersBody:
    """Return the workers that are alive."""
    return WorkersBody.of(transact(services.sessions, views.workers))


def _parsed(given: object) -> RenderParams | None:
    """Return the parameters asked for; None where their form is wrong: the door then says all that is."""
    try:
        return door.parse(given)
    except Refused:
        return None


def _changed(services: Services, view: views.JobView, images: int) -> ChangeBody:
    """Tell those who follow a job that it has changed, and return what it is now."""
    services.events.publish(JobChanged(view.id, view.state))
    return ChangeBody(images=images, job=JobBody.of(view, services.events.progress(view.id)))


def _own(session: Session, owner: str, job_id: int) -> None:
    """Raise NotFound unless the job is `owner`'s: what is somebody else's does not exist here."""
    if session.scalar(select(Job.id).where(Job.id == job_id, Job.owner == owner)) is None:
        raise NotFound(f"There is no job {job_id}.")
