"""Submission: a job and its images, recorded in one transaction or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.states import ImageState
from shared.db.tables import Image, Job
from shared.errors import Conflict, FieldError, Refused
from shared.jobs import stored
from shared.languages.catalogue import ENGLISH
from shared.media import uploads
from shared.models.model_set import ModelSet
from shared.params.geometry import CELL, hires_size, hires_steps, img2img_steps
from shared.params.job_spec import Axis, SeedsOfCells, Sweep
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from shared.params.scheduling import NO_SCHEDULING, Scheduling, utc_words
from shared.prompts import composable
from shared.queue import dependencies
from shared.queue.history import Event
from shared.queue.holds import held_by
from shared.queue.queries import Span


@dataclass(frozen=True)
class Cell:
    """One image of a sweep: what it changes of the job's parameters, and what it is rendered with."""

    changes: dict[str, Any] = field(hash=False)  # dotted name of a parameter -> value, as JSON has it
    params: RenderParams  # complete, of this image alone
    models: ModelSet | None = None  # None: those of the job


@dataclass(frozen=True)
class Admission:
    """A job as it may be recorded: `shared.admission` makes it of what an owner asked for."""

    owner: str
    params: RenderParams  # complete; `params.pictures` are uploads of the owner's. `params.count` images
    models: ModelSet
    scheduling: Scheduling = NO_SCHEDULING
    request: str = ""  # digest of what was asked for: tells one request from another under the same idempotency key
    notes: tuple[str, ...] = ()  # for its owner: what was chosen that may not be expected
    axes: tuple[Axis, ...] = ()
    cells: tuple[Cell, ...] = ()  # the images of a sweep, by index; none: they differ by their seeds alone
    seeds: SeedsOfCells = "same"  # of the cells
    language: str = ENGLISH  # that the contact sheet is drawn in
    lesson: str | None = None  # which experiment of `shared.jobs.lessons` it is
    door: str | None = None  # through which other system's API it came
    full_steps: int | None = None  # of a draft with fewer steps
    draft_every: int = 1  # every image of this number is queued; the others are held until the job is released

    def __post_init__(self) -> None:
        if self.cells and len(self.cells) != self.params.count:
            raise ValueError(f"{len(self.cells)} cells for a job of {self.params.count} images")

    @property
    def sweep(self) -> Sweep | None:
        """What the job stores beside its parameters."""
        if not self.axes:
            return None
        return Sweep(axes=self.axes, seeds=self.seeds, language=self.language, full_steps=self.full_steps)


@dataclass(frozen=True)
class Submission:
    """A recorded job; `is_new` is False where the same request had brought it before."""

    job: Job
    is_new: bool
    images: Sequence[Image] | None = None  # the first ones, and one more if there is one; None: to be read


AWAITS_APPROVAL: Final = "waits for the draft's approval"
"""Why the images of a sweep are held of which a draft is rendered first."""
_UPSCALE_COST: Final = 2**17  # as 20 steps of 512 x 512 with guidance
_UPSCALE_CLASS: Final = 13  # the cells of a tile's result at four times its size

_JOB: Final = insert(Job).on_conflict_do_nothing(index_elements=[Job.owner, Job.idempotency_key]).returning(Job)

# By name: the same statement comes again on a connection for as long as that lasts, and a migration may add columns.
_COLUMNS: Final = ", ".join(column.name for column in Image.__table__.columns)
# Images that differ by their seeds alone are one row of `alike`; each image of a sweep is one of its own.
_IMAGES: Final = text(f"""
    WITH noted AS (
        INSERT INTO history (event, job_id, detail) VALUES (:event, :job_id, :owner)
    ),
    recorded AS (
        INSERT INTO images (
            job_id, index, state, owner, checkpoint, pool, memory_class, urgent, priority, cost, attempt, strikes,
            companions, reason, expires_at, held_until, held_behind, changes, models
        )
        SELECT jobs.id, index,
               -- Of a draft every image of a number is queued.
               CASE WHEN index % :draft_every > 0 THEN 'held' ELSE :state END,
               owner, alike.checkpoint, pool, alike.memory_class, urgent, priority, alike.cost, 0, 0, alike.companions,
               CASE WHEN index % :draft_every > 0 THEN :draft_reason ELSE :reason END,
               expires_at, hold_until, hold_behind,
               CAST(alike.changes AS jsonb), CAST(alike.models AS jsonb)
        FROM jobs
        CROSS JOIN unnest(
            CAST(:checkpoints AS text[]), CAST(:memory_classes AS bigint[]), CAST(:costs AS bigint[]),
            CAST(:companions AS text[]), CAST(:changes AS text[]), CAST(:models AS text[])
        ) WITH ORDINALITY AS alike (checkpoint, memory_class, cost, companions, changes, models, number)
        CROSS JOIN generate_series(number - 1, CASE WHEN :is_sweep THEN number ELSE count END - 1) AS index
        WHERE jobs.id = :job_id
        ORDER BY index
        RETURNING {_COLUMNS}
    )
    SELECT {_COLUMNS} FROM recorded ORDER BY index LIMIT :shown
""")  # noqa: S608 - a constant
_RECORDED: Final = select(Image).from_statement(_IMAGES)


def submit(session: Session, admission: Admission, idempotency_key: str | None = None) -> Submission:
    """Record a job and queue its images, or hold them as its scheduling says.

    With an idempotency key the same request brings the same job, however often and from wherever it comes; another
    request under that key raises Conflict. Raises Refused where an upload that the job starts from, or a job that it
    waits for, is gone.
    """
    owner, params, models, scheduling = admission.owner, admission.params, admission.models, admission.scheduling
    job = _insert_job(
        session,
        owner=owner,
        params=stored.written(params, admission.sweep),
        checkpoint=models.lane,
        models=models.to_stored(),
        **scheduling.model_dump(exclude={"on"}),
        after_on=scheduling.on,
        count=params.count,
        unfinished=params.count,
        lesson=admission.lesson,
        door=admission.door,
        idempotency_key=idempotency_key or None,
        idempotency_digest=admission.request if idempotency_key else None,
    )
    if job is None:
        return _earlier(session, admission, idempotency_key)
    waits_for = dependencies.open_ones(session, owner, scheduling.after, scheduling.on)
    job.waits = bool(waits_for)
    draft = {"draft_every": admission.draft_every, "draft_reason": AWAITS_APPROVAL}
    named = {"job_id": job.id, "owner": owner, "event": Event.SUBMITTED, "shown": Span().limit + 1}
    given = named | draft | _lanes(admission) | _held(owner, scheduling, waits_for)
    images = session.scalars(_RECORDED, given).all()
    pictures = dict.fromkeys(
        chain(params.pictures.items(), *(cell.params.pictures.items() for cell in admission.cells))
    )
    if gone := uploads.use(session, owner, job.id, {sha256 for _, sha256 in pictures}):
        fields = dict.fromkeys(name for name, sha256 in pictures if sha256 in gone)
        problems = tuple(FieldError(name, "The upload is gone", "the same picture, uploaded again") for name in fields)
        raise Refused("The job cannot start from an upload that is gone.", problems)
    return Submission(job, is_new=True, images=images)


def repeated(session: Session, owner: str, idempotency_key: str, request: str) -> Submission | None:
    """Return the job that the key has brought before; None where it is new. Raises Conflict for another request.

    Looked up before a request is admitted, so that one that comes again is not refused for what has changed since.
    """
    job = session.scalar(select(Job).where(Job.owner == owner, Job.idempotency_key == idempotency_key))
    if job is not None and job.idempotency_digest != request:
        raise Conflict(f"The idempotency key {idempotency_key!r} came with another request before, as job {job.id}.")
    return None if job is None else Submission(job, is_new=False)


def cost(params: RenderParams) -> int:
    """Return the work of one image: rows x model calls x latent cells, over both passes; of an enlarged picture a
    fixed figure.
    """
    if params.upscale:
        return _UPSCALE_COST
    return max(1, sum(work.rows * work.calls * work.cells for work in _passes(params)))


def memory_class(params: RenderParams) -> int:
    """Return the memory class of one image: the smallest power of two that holds the cells of its largest latent.

    Pictures are enlarged in tiles, so that all need the same.
    """
    if params.upscale:
        return _UPSCALE_CLASS
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


def _lanes(admission: Admission) -> dict[str, object]:
    """Return what decides which workers may render the images of a job: a list of one for all, or one for each."""
    job = admission.models
    cells = admission.cells or (Cell({}, admission.params),)
    sets = [cell.models or job for cell in cells]
    is_sweep = bool(admission.cells)
    return {
        "is_sweep": is_sweep,
        "checkpoints": [models.lane for models in sets],
        "companions": [models.companions for models in sets],
        "memory_classes": [memory_class(cell.params) for cell in cells],
        "costs": [cost(cell.params) for cell in cells],
        "changes": [json.dumps(cell.changes) if is_sweep else None for cell in cells],
        "models": [None if models == job else json.dumps(models.to_stored()) for models in sets],
    }


def _held(owner: str, scheduling: Scheduling, waits_for: Sequence[int]) -> dict[str, object]:
    """Return the state that the images of a job begin in, and why they are held."""
    reason = None
    if scheduling.hold:
        reason = held_by(owner)
    elif scheduling.hold_until:
        reason = f"held until {utc_words(scheduling.hold_until)}"
    elif scheduling.hold_behind:
        reason = f"held behind job {scheduling.hold_behind}"
    elif waits_for:
        reason = dependencies.held_for(waits_for, scheduling.on)
    return {"state": ImageState.HELD if reason else ImageState.QUEUED, "reason": reason}


def _insert_job(session: Session, **columns: object) -> Job | None:
    """Return the new job; None when the owner's key is taken. Waits for a transaction that is just taking it."""
    return session.scalars(_JOB, [columns]).one_or_none()


def _earlier(session: Session, admission: Admission, key: str | None) -> Submission:
    found = repeated(session, admission.owner, key, admission.request) if key else None
    if found is None:
        raise Conflict(f"The job of the idempotency key {key!r} was deleted just now: ask again.")
    return found
