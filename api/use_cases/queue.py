"""The use cases of who runs the farm: everybody's jobs, without what they render.

As in `api.use_cases.jobs` each opens its own transaction, and messages go out after the commit. That the role allows
them is the route's rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from sqlalchemy.orm import Session

from api.schemas.queue import QueueBody, QueueChangeBody, QueuedJobBody
from api.services import Services
from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.principal import Principal
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.states import ImageState
from shared.messaging.events import JobChanged
from shared.queue import holds, queries, transitions
from shared.queue.queries import NO_IMAGES, JobView

log = structlog.get_logger(__name__)

_OPEN: Final = (ImageState.RUNNING, ImageState.QUEUED, ImageState.HELD)


def listed(services: Services, cursor: int | None, limit: int) -> QueueBody:
    """Return a page of the jobs of everybody that have not ended."""
    page = transact(services.sessions, lambda session: queries.jobs(session, EVERYBODYS, _OPEN, cursor, limit))
    return QueueBody.of(page)


def hold(services: Services, who: Principal, job_id: int) -> QueueChangeBody:
    """Keep a job's queued images from starting until it is released. Raises NotFound, Conflict."""
    hold_images = partial(holds.hold, whose=EVERYBODYS, job_id=job_id, by=who.owner)
    moves = _moving(who, Action.JOB_HELD, job_id, hold_images)
    images, view = transact(services.sessions, moves)
    return _changed(services, who, "hold", images, view)


def release(services: Services, who: Principal, job_id: int) -> QueueChangeBody:
    """Queue a job's held images, with tickets. Raises NotFound, Conflict."""
    release_images = partial(holds.release, whose=EVERYBODYS, job_id=job_id, by=who.owner)
    moves = _moving(who, Action.JOB_RELEASED, job_id, release_images)
    images, view = transact(services.sessions, moves)
    services.tickets.publish(view.pool, images)
    return _changed(services, who, "release", images, view)


def cancel(services: Services, who: Principal, job_id: int) -> QueueChangeBody:
    """Cancel a job's images that have not ended, and notify the workers. Raises NotFound, Conflict."""

    def cancel_images(session: Session) -> tuple[transitions.Cancelled, JobView]:
        cancelled = transitions.cancel(session, EVERYBODYS, job_id)
        view = queries.job(session, EVERYBODYS, job_id, NO_IMAGES)
        audit.note_job(session, who, Action.JOB_CANCELLED, view.owner, job_id)
        return cancelled, view

    cancelled, view = transact(services.sessions, cancel_images)
    services.events.announce_cancel(cancelled.running)
    return _changed(services, who, "cancel", cancelled.images, view)


def _moving(
    who: Principal, action: Action, job_id: int, move: Callable[[Session], int]
) -> Callable[[Session], tuple[int, JobView]]:
    """Return what moves images of a job, writes that down, and reads the job."""

    def move_images(session: Session) -> tuple[int, JobView]:
        images, view = move(session), queries.job(session, EVERYBODYS, job_id, NO_IMAGES)
        audit.note_job(session, who, action, view.owner, job_id)
        return images, view

    return move_images


def _changed(services: Services, who: Principal, change: str, images: int, view: JobView) -> QueueChangeBody:
    """Tell those who follow the job, and return what it is now."""
    log.info("somebody's job changed", change=change, job=view.id, owner=view.owner, images=images, by=who.owner)
    services.events.publish(JobChanged(view.id, view.state))
    return QueueChangeBody(images=images, job=QueuedJobBody.of(view))
