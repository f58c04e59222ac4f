"""What can be done with the farm over HTTP, one function each: the JSON routes and the pages call the same ones.
This module has those of jobs.

Each opens its own transaction; messages to workers and pages go out after the commit. `who` is who asks: what is
somebody else's is NotFound, except for an admin.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from sqlalchemy.orm import Session

from api.languages import language
from api.schemas.jobs import NOTHING_LIVE, ChangeBody, DisplayState, ImagePageBody, JobBody, JobPageBody, Live
from api.services import Services
from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.principal import Principal
from shared.accounts.scope import Scope
from shared.admission import allowance, backlog, changing, drafts, renewal
from shared.admission.admit import admit, prepare
from shared.admission.allowance import Asked
from shared.admission.axes.wildcards import Wildcards
from shared.admission.parse import JobRequest, parse, refused
from shared.db.sessions import transact
from shared.db.states import ImageState
from shared.errors import REVOKED, FieldError, Refused, StorageError, Unauthorized
from shared.media import uploads
from shared.media.storage import job_prefix
from shared.messaging.events import JobChanged
from shared.prompts.styles import load
from shared.queue import dependencies, holds, queries, rescheduling, transitions
from shared.queue.explain import Waiting
from shared.queue.queries import Span
from shared.queue.submit import Admission, repeated
from shared.queue.submit import submit as record
from shared.settings import Limits
from shared.webhooks import endpoints

log = structlog.get_logger(__name__)

_WAIT_SECONDS: Final = 0.2  # between two queries for a job that is waited for


@dataclass(frozen=True)
class Submitted:
    """The job of a submission; it is not new if the same request came before under its key."""

    job: JobBody
    is_new: bool


def submit(  # noqa: PLR0913 - all that a job may say
    services: Services,
    who: Principal,
    given: object,
    idempotency_key: str | None = None,
    *,
    lesson: str | None = None,
    door: str | None = None,
) -> Submitted:
    """Record a job of what was given, a JSON object as it came, and publish its tickets.

    It is admitted and recorded in one transaction. Before that, a request with a key is looked up, and a request that
    brings pictures is admitted alone: its pictures are kept as uploads only if no field is wrong. `lesson` notes which
    experiment it is, `door` through which other system's API it came. The contact sheet of a sweep is drawn
    in the language of the request.
    Raises Refused that names every wrong field, Conflict if the key came with another request before.
    """
    request = parse(given, who.owner, services.limits(who))
    if idempotency_key and request.is_well_formed:  # a newer version may know names that are unknown here
        again = transact(services.sessions, lambda session: _again(session, request, idempotency_key))
        if again is not None:
            return again
    request = prepared(services, request)
    admission: Admission | None = None
    if request.pictures:
        admission = transact(services.sessions, lambda session: admitted(services, session, request))
        uploads.keep(services.sessions, services.storage, who.owner, request.pictures, request.limits)
    services.readiness.storage()  # its first poll makes sure that the storage has no job of the next id

    def admit_and_record(session: Session) -> tuple[queries.JobView, bool, tuple[str, ...]]:
        complete = admission or admit(session, request, services.catalogue.read(session))
        allowance.check(session, Asked.by(complete), request.limits.of_owner, idempotency_key)
        complete = replace(complete, lesson=lesson, door=door, language=language())
        submission = record(session, complete, idempotency_key)
        if request.scheduling.webhook:
            endpoints.of_jobs(session, who.owner)
        view = queries.of_row(session, submission.job, images=submission.images)
        return view, submission.is_new, complete.notes

    view, is_new, notes = transact(services.sessions, admit_and_record)
    if is_new:
        services.tickets.publish(view.pool, view.counts[ImageState.QUEUED])
    body = JobBody.from_view(view, notes=notes)  # Redis is not asked: it never slows a submission down
    return Submitted(body, is_new)


def problems(services: Services, who: Principal, given: object) -> tuple[FieldError, ...]:
    """Return what `submit` would refuse of what was given, and record nothing. Raises Unavailable."""
    try:
        request = prepared(services, parse(given, who.owner, services.limits(who)))
        transact(services.sessions, lambda session: admitted(services, session, request))
    except Refused as error:
        return error.fields
    return ()


def job(services: Services, who: Principal, job_id: int, span: Span = Span()) -> JobBody:  # noqa: B008 - frozen
    """Return a job with some of its images, their latest progress, and why it waits. Raises NotFound."""
    return body_of(services, transact(services.sessions, lambda session: queries.job(session, who.scope, job_id, span)))


def body_of(services: Services, view: queries.JobView) -> JobBody:
    """Return a job that was read with the latest progress of its images, and why it waits. Raises Unavailable."""
    return shown(services, view, waiting(services, view))


def waiting(services: Services, view: queries.JobView) -> Waiting | None:
    """Return why a job that was read waits; None if none of its images does. Raises Unavailable."""
    waits = view.counts[ImageState.QUEUED] or view.counts[ImageState.HELD]
    return services.explainer.explain(view.id) if waits else None


def shown(services: Services, view: queries.JobView, waiting: Waiting | None) -> JobBody:
    """Return a job that was read with the latest progress of its images."""
    return JobBody.from_view(view, _live(services, view), waiting)


def images(services: Services, who: Principal, job_id: int, span: Span) -> ImagePageBody:
    """Return some of a job's images with their latest progress. Raises NotFound."""
    view = transact(services.sessions, lambda session: queries.job(session, who.scope, job_id, span))
    body = JobBody.from_view(view, _live(services, view))
    return ImagePageBody(images=body.images, next=body.next)


def state(services: Services, who: Principal, job_id: int) -> ImageState:
    """Return a job's state alone, which reads none of its images. Raises NotFound."""
    return transact(services.sessions, lambda session: queries.state(session, who.scope, job_id))


def wait(services: Services, who: Principal, job_id: int, seconds: float) -> tuple[JobBody, bool]:
    """Return a job when it has ended or `seconds` have passed, and whether it was waited for at all.

    Waiting takes a thread, so only some may wait at a time; the others look again on their own. Raises Unauthorized
    once the key of who waits has been revoked.
    """
    if not services.waits.take(who.owner):
        return job(services, who, job_id), False
    try:
        end = time.monotonic() + seconds
        while not state(services, who, job_id).is_final and time.monotonic() < end:
            if not services.still_knows(who):
                raise Unauthorized(REVOKED)
            if services.stopping.wait(_WAIT_SECONDS):
                break
        return job(services, who, job_id), True
    finally:
        services.waits.give(who.owner)


def jobs(  # noqa: PLR0913 - a page of a list
    services: Services,
    who: Principal,
    states: Sequence[DisplayState],
    cursor: int | None,
    limit: int,
    *,
    owner: str | None = None,
) -> JobPageBody:
    """Return a page of one's own jobs, or those that an admin names, the latest first. Raises Forbidden."""
    whose, shown = who.names(owner), [ImageState(state) for state in states]
    page = transact(services.sessions, lambda session: queries.jobs(session, whose, shown, cursor, limit))
    return JobPageBody.from_page(page, lambda job: _live(services, job))


def change(services: Services, who: Principal, job_id: int, given: object) -> ChangeBody:
    """Reschedule a job as a JSON object says, with tickets for where it waits now; what runs goes on as it is.

    Raises Refused, NotFound, Conflict.
    """
    wanted = changing.parse(given)

    def change_job(session: Session) -> tuple[int, queries.JobView]:
        owner = queries.owner(session, who.scope, job_id)
        changing.check(session, owner, job_id, wanted, _limits(services, session, who, owner))
        images = rescheduling.change(session, who.scope, job_id, wanted, by=who.owner)
        audit.note_job(session, who, Action.JOB_CHANGED, owner, job_id)
        return images, queries.job(session, who.scope, job_id)

    images, view = transact(services.sessions, change_job)
    if wanted.pool is not None or wanted.hold is False or wanted.after is not None:
        services.tickets.publish(view.pool, view.counts[ImageState.QUEUED])
    return _changed(services, view, images)


def cancel(
    services: Services, who: Principal, job_id: int, index: int | None = None, *, only_waiting: bool = False
) -> ChangeBody:
    """Cancel a job's images that have not ended, or one, or those that wait, and notify the workers.

    Raises NotFound, Conflict.
    """

    def cancel_images(session: Session) -> tuple[transitions.Cancelled, queries.JobView]:
        cancelled = transitions.cancel(session, who.scope, job_id, index, only_waiting=only_waiting)
        return cancelled, _noted(session, who, Action.JOB_CANCELLED, job_id)

    cancelled, view = transact(services.sessions, cancel_images)
    services.events.announce_cancel(cancelled.running)
    return _changed(services, view, cancelled.images)


def retry(services: Services, who: Principal, job_id: int, index: int | None = None) -> ChangeBody:
    """Put failed and cancelled images back, with tickets for those that wait for no job.

    Raises NotFound, Conflict, Refused.
    """

    def retry_images(session: Session) -> tuple[int, queries.JobView]:
        owner = queries.owner(session, who.scope, job_id)
        if queries.state(session, who.scope, job_id).is_final:  # which opens it again
            backlog.check(session, owner, services.settings.limits)
        limits = _limits(services, session, who, owner)
        renewal.check_again(session, job_id, index, limits)
        allowance.check(session, allowance.again(session, owner, job_id, index), limits.of_owner)
        images = dependencies.retry(session, who.scope, job_id, index)
        return images, _noted(session, who, Action.JOB_RETRIED, job_id)

    images, view = transact(services.sessions, retry_images)
    services.tickets.publish(view.pool, min(images, view.counts[ImageState.QUEUED]))
    return _changed(services, view, images)


def waiting_for(services: Services, who: Principal, job_id: int) -> list[int]:
    """Return the jobs that wait for this one."""
    return transact(services.sessions, lambda session: dependencies.waiting_for(session, who.scope, job_id))


def hold(services: Services, who: Principal, job_id: int) -> ChangeBody:
    """Keep a job's queued images from starting until it is released. Raises NotFound, Conflict."""

    def hold_images(session: Session) -> tuple[int, queries.JobView]:
        images = holds.hold(session, who.scope, job_id, by=who.owner)
        return images, _noted(session, who, Action.JOB_HELD, job_id)

    images, view = transact(services.sessions, hold_images)
    return _changed(services, view, images)


def release(services: Services, who: Principal, job_id: int) -> ChangeBody:
    """Queue a job's held images, with tickets. Raises NotFound, Conflict."""

    def release_images(session: Session) -> tuple[int, queries.JobView]:
        images = holds.release(session, who.scope, job_id, by=who.owner)
        return images, _noted(session, who, Action.JOB_RELEASED, job_id)

    images, view = transact(services.sessions, release_images)
    services.tickets.publish(view.pool, images)
    return _changed(services, view, images)


def approve(services: Services, who: Principal, job_id: int) -> Submitted:
    """Record the sweep of which a job is a draft with fewer steps, with all of them, and publish its tickets.

    Approved again, it is the same job. Raises NotFound, Conflict, Refused.
    """
    services.readiness.storage()

    def record_in_full(session: Session) -> tuple[queries.JobView, bool]:
        owner, key = queries.owner(session, who.scope, job_id), f"draft {job_id}"
        if submission := repeated(session, owner, key, key):
            return queries.job(session, who.scope, submission.job.id), False
        limits = _limits(services, session, who, owner)
        admission = drafts.in_full(session, who.scope, job_id, limits)
        allowance.check(session, Asked.by(admission), limits.of_owner, key)
        submission = record(session, admission, key)
        if submission.is_new:
            audit.note_job(session, who, Action.JOB_APPROVED, admission.owner, job_id)
        return queries.job(session, who.scope, submission.job.id), submission.is_new

    view, is_new = transact(services.sessions, record_in_full)
    if is_new:
        services.tickets.publish(view.pool, view.counts[ImageState.QUEUED])
    return Submitted(JobBody.from_view(view), is_new)


def delete(services: Services, who: Principal, job_id: int) -> None:
    """Remove a job, and then its pictures. Raises NotFound, Conflict while an image runs.

    Where the storage is away the pictures stay: the job is gone by then, so that asking again would not help.
    """

    def delete_it(session: Session) -> None:
        audit.note_job(session, who, Action.JOB_DELETED, queries.owner(session, who.scope, job_id), job_id)
        transitions.delete(session, who.scope, job_id)

    transact(services.sessions, delete_it)
    try:
        services.storage.delete(job_prefix(job_id))
    except StorageError as error:
        log.warning("pictures of a deleted job remain", job=job_id, prefix=job_prefix(job_id), reason=str(error))


def admitted(services: Services, session: Session, request: JobRequest) -> Admission:
    """Return the job that a request asks for, and record nothing. Raises Refused."""
    admission = admit(session, request, services.catalogue.read(session))
    if problems := [*allowance.too_much(session, Asked.by(admission), request.limits.of_owner)]:
        raise refused(problems)
    return admission


def _limits(services: Services, session: Session, who: Principal, owner: str) -> Limits:
    """Return the limits of admission for a job's owner, also where an admin acts."""
    return services.limits(who if owner == who.owner else services.keyring.person(session, owner))


def _noted(session: Session, who: Principal, action: Action, job_id: int) -> queries.JobView:
    """Return a job as it is now; what somebody else than its owner has done with it is written down."""
    view = queries.job(session, who.scope, job_id)
    audit.note_job(session, who, action, view.owner, job_id)
    return view


def _again(session: Session, request: JobRequest, key: str) -> Submitted | None:
    """Return the job that the same request has led to before, or None. Raises Conflict."""
    submission = repeated(session, request.owner, key, request.digest)
    if submission is None:
        return None
    return Submitted(JobBody.from_view(queries.job(session, Scope(request.owner), submission.job.id)), is_new=False)


def prepared(services: Services, request: JobRequest) -> JobRequest:
    """Return a request ready to be admitted. Raises Unavailable."""
    needs_styles = request.params.styles or request.sweep is not None
    styles = load(services.settings.styles_path) if needs_styles else {}
    wildcards = Wildcards.of(services.settings.wildcards_path)
    return prepare(request, styles, services.picture_reader, wildcards)


def _live(services: Services, job: queries.JobView) -> Live:
    """Return what happens to the images of a job now; Redis is asked only if any is running."""
    if not job.counts[ImageState.RUNNING]:
        return NOTHING_LIVE
    running = [image.index for image in job.images if image.state == ImageState.RUNNING]
    return Live(services.events.progress(job.id), services.events.previews(job.id, running))


def _changed(services: Services, view: queries.JobView, images: int) -> ChangeBody:
    """Tell those who follow a job that it has changed, and return what it is now."""
    services.events.publish(JobChanged(view.id, view.state))
    return ChangeBody(images=images, job=JobBody.from_view(view, _live(services, view)))
