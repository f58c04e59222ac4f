"""Submission: a job and its images, recorded in one transaction or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.states import ImageState
from shared.db.tables import Job
from shared.errors import Conflict
from shared.jobs import stored
from shared.media import uploads
from shared.models.model_set import ModelSet
from shared.params.geometry import CELL, hires_size, hires_steps, img2img_steps
from shared.params.pools import DEFAULT_POOL
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from shared.params.scheduling import NO_SCHEDULING, Scheduling, told
from shared.prompts import composable
from shared.queue.history import Event
from shared.queue.holds import held_by


@dataclass(frozen=True)
class Submission:
    """The job that was asked for; `is_new` is False when its idempotency key had brought it before."""

    job: Job
    is_new: bool


_IMAGES = text("""
    INSERT INTO images (
        job_id, index, state, owner, checkpoint, pool, memory_class, urgent, priority, cost, attempt, strikes,
        companions, reason, expires_at, held_until, held_behind
    )
    SELECT jobs.id, index, :state, owner, checkpoint, pool, :memory_class, urgent, priority, :cost, 0, 0,
           :companions, :reason, expires_at, hold_until, hold_behind
    FROM jobs
    CROSS JOIN generate_series(0, count - 1) AS index
    WHERE jobs.id = :job_id
""")

_NOTE = text("""
    INSERT INTO history (event, job_id, detail) VALUES (:event, :job_id, :owner)
""")


def submit(  # noqa: PLR0913 - what the door knows of a job
    session: Session,
    owner: str,
    params: RenderParams,
    *,
    checkpoint: str,
    pool: str = DEFAULT_POOL,
    priority: int = 0,
    urgent: bool = False,
    idempotency_key: str | None = None,
    asked: RenderParams | None = None,
    terms: Scheduling = NO_SCHEDULING,
    models: ModelSet | None = None,
) -> Submission:
    """Record a job of the resolved `params` and queue its images, or hold them by its `terms`.

    `checkpoint` is the SHA-256 that `params.checkpoint` names, and `models` all that `params` name: without them the
    worker looks the names up. With an idempotency key the same request brings the same
    job, however often and from wherever it comes; another request under that key raises Conflict. Requests are compared
    as they came: `asked`, before the door filled in a random seed (default: `params`).
    """
    asked = asked or params
    job = _insert_job(
        session,
        owner=owner,
        params=stored.written(params),
        checkpoint=checkpoint,
        models=models and models.to_stored(),
        pool=pool,
        priority=priority,
        urgent=urgent,
        **terms.model_dump(include={"expires_at", "hold", "hold_until", "hold_behind"}),
        count=params.count,
        unfinished=params.count,
        idempotency_key=idempotency_key or None,
        idempotency_digest=_digest(asked, terms) if idempotency_key else None,
    )
    if job is None:
        return _earlier(session, owner, idempotency_key, asked, terms)
    session.execute(
        _IMAGES,
        {
            "job_id": job.id,
            "memory_class": memory_class(params),
            "companions": models.companions if models else "",
            "cost": cost(params),
        }
        | _held(owner, terms),
    )
    uploads.use(session, owner, job.id, params.pictures)
    session.execute(_NOTE, {"event": Event.SUBMITTED, "job_id": job.id, "owner": owner})
    return Submission(job, is_new=True)


def repeated(
    session: Session, owner: str, idempotency_key: str, asked: RenderParams, terms: Scheduling = NO_SCHEDULING
) -> Submission | None:
    """Return the job that the key has brought before; None where it is new. Raises Conflict for another request.

    Asked before the door is, so that a request which comes again is not refused for what has changed since.
    """
    job = session.scalar(select(Job).where(Job.owner == owner, Job.idempotency_key == idempotency_key))
    if job is not None and job.idempotency_digest != _digest(asked, terms):
        raise Conflict(f"The idempotency key {idempotency_key!r} came with another request before, as job {job.id}.")
    return None if job is None else Submission(job, is_new=False)


def cost(params: RenderParams) -> int:
    """Return the work of one image: rows x model calls x latent cells, over both passes."""
    return max(1, sum(work.rows * work.calls * work.cells for work in _passes(params)))


def memory_class(params: RenderParams) -> int:
    """Return the memory class of one image: the smallest power of two that holds the cells of its largest latent."""
    return (max(work.cells for work in _passes(params)) - 1).bit_length()


class _Pass(NamedTuple):
    """One way through the steps: how many rows each model call has, how many calls there are, how large the latent."""

    rows: int
    calls: int
    cells: int


def _passes(params: RenderParams) -> Iterator[_Pass]:
    steps = params.steps
    if params.img2img is not None:
        steps = img2img_steps(steps, params.img2img.denoising, exact=params.img2img.exact_steps).run
    yield _Pass(_rows(params, params.prompt), _calls(params.sampler, steps), _cells(params.width, params.height))
    if params.hires is not None:
        rows, sampler = _rows(params, params.hires.prompt or params.prompt), params.hires.sampler or params.sampler
        width, height = hires_size(params.width, params.height, params.hires).final
        yield _Pass(rows, _calls(sampler, hires_steps(params, params.hires).run), _cells(width, height))


def _rows(params: RenderParams, prompt: str) -> int:
    """Return the rows of one model call: each part of the prompt that AND joins has its own."""
    return params.rows - 1 + len(composable.read(prompt))


def _calls(sampler: str, steps: int) -> int:
    return SAMPLERS[sampler].calls(steps) if steps else 0


def _cells(width: int, height: int) -> int:
    return (width // CELL) * (height // CELL)


def _held(owner: str, terms: Scheduling) -> dict[str, object]:
    """Return the state that the images of a job begin in, and why they are held."""
    reason = None
    if terms.hold:
        reason = held_by(owner)
    elif terms.hold_until:
        reason = f"held until {told(terms.hold_until)}"
    elif terms.hold_behind:
        reason = f"held behind job {terms.hold_behind}"
    return {"state": ImageState.HELD if reason else ImageState.QUEUED, "reason": reason}


def _digest(asked: RenderParams, terms: Scheduling) -> str:
    parts = [part.model_dump_json(exclude_defaults=True) for part in (asked, terms)]
    # Without terms as it was before there were any: what came with a key then is still known.
    return hashlib.sha256("".join(parts if terms != NO_SCHEDULING else parts[:1]).encode()).hexdigest()


def _insert_job(session: Session, **columns: object) -> Job | None:
    """Return the new job; None when the owner's key is taken. Waits for a transaction that is just taking it."""
    statement = insert(Job).values(columns).on_conflict_do_nothing(index_elements=[Job.owner, Job.idempotency_key])
    return session.scalars(statement.returning(Job)).one_or_none()


def _earlier(session: Session, owner: str, key: str | None, asked: RenderParams, terms: Scheduling) -> Submission:
    found = repeated(session, owner, key, asked, terms) if key else None
    if found is None:
        raise Conflict(f"The job of the idempotency key {key!r} was deleted just now: ask again.")
    return found
