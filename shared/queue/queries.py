"""Queries of the queue, with frozen values for the API and the command line. They read only, and lock nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_, select, text
from sqlalchemy.orm import Session

from shared.accounts.scope import Scope
from shared.db.states import UNKNOWN, ImageState, JobState, WorkerState
from shared.db.tables import Drain, Image, Job, Picture, Worker
from shared.jobs import stored
from shared.models.model_set import hashes_in
from shared.params.job_spec import Axis, JobSpec
from shared.params.render import RenderParams
from shared.queue.conflicts import no_job
from shared.queue.workers import ResidentModel, resident_models

SHOWN: Final = 8  # images of each job on a page of jobs
_LAST_INDEX: Final = 2**53  # no job has as many images, and a database can still count on from it
_WAITS: Final = frozenset({ImageState.HELD, ImageState.QUEUED})
MOST_IMAGES: Final = 1000  # of a job that one answer holds
FARTHEST = 1000  # positions are counted up to here


@dataclass(frozen=True)
class Span:
    """Which images of a job come with it: the first `limit` after the index `after`; in any of `states`, if given."""

    after: int = -1
    limit: int = 100
    states: tuple[ImageState, ...] = ()


NO_IMAGES: Final = Span(limit=0)


@dataclass(frozen=True)
class ImageView:
    """One image of a job."""

    id: int
    index: int
    state: ImageState
    seed: int
    attempt: int
    strikes: int
    worker: str | None  # name of the worker that runs or ended it
    reason: str | None  # why it failed, is held or was not started in time
    queued_at: datetime
    expires_at: datetime | None  # cancelled if it has not started by then
    started_at: datetime | None  # of the latest attempt; None while it waits
    ended_at: datetime | None
    bytes: int | None  # size of the picture
    changes: Mapping[str, Any] | None = None  # of an image of a sweep, as its row has them
    hashes: Mapping[str, str] = field(default_factory=dict)  # ModelSet.hashes
    deleted_at: datetime | None = None  # its picture alone was deleted, and can be restored for a while


@dataclass(frozen=True)
class JobView:
    """A job. While it is open its `state` is that of its images: running if any runs, else queued, else held."""

    id: int
    owner: str
    state: ImageState
    spec: JobSpec  # with the changes of its `images`
    checkpoint: str  # SHA-256
    created_at: datetime
    ended_at: datetime | None
    counts: dict[ImageState, int]  # of all its images, every state that this version knows and those it met
    started_at: datetime | None  # of the first image that has started
    images: tuple[ImageView, ...]  # by index, those of a `Span`; on a page of jobs the first `SHOWN`
    next: int | None  # `Span.after` for the images after these; None: there are none
    position: int | None  # images of its owner that stand before its first queued one; at most `FARTHEST`
    pool: str
    priority: int
    urgent: bool
    expires_at: datetime | None  # images that have not started by then are cancelled
    unknown: Mapping[str, Any] = field(default_factory=dict)  # parameters of a newer version, by dotted name
    hashes: Mapping[str, str] = field(default_factory=dict)  # ModelSet.hashes
    webhook: str | None = None  # address that gets a message when it has ended
    after: tuple[int, ...] = ()  # jobs that it waits for
    on: str = "success"  # what they must do: shared.params.scheduling.DependsOn

    @property
    def count(self) -> int:
        """The number of all its images."""
        return sum(self.counts.values())

    @property
    def params(self) -> RenderParams:
        """Its parameters, from which the images of a sweep differ."""
        return self.spec.params

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of a sweep; of another job none."""
        return self.spec.axes


@dataclass(frozen=True)
class Finished:
    """The images of a job that have pictures: index -> attempt, and what is understood of their parameters."""

    attempts: Mapping[int, int]
    spec: JobSpec
    unknown: Mapping[str, Any]  # by dotted name


@dataclass(frozen=True)
class Page:
    """Some jobs, the latest first; `next` is the cursor of the page after this one, None on the last."""

    jobs: tuple[JobView, ...]
    next: int | None


@dataclass(frozen=True)
class WorkerView:
    """A worker: one start of one process."""

    id: int
    name: str
    host: str
    pid: int
    card: str
    card_name: str
    pool: str
    slots: int
    running: int  # images
    state: WorkerState
    phase: str  # what it does now, for people
    resident: tuple[str, ...]  # SHA-256
    models: tuple[ResidentModel, ...]  # the largest first; those of an older version are not known
    load_seconds: float | None
    started_at: datetime
    beat_at: datetime
    is_late: bool  # past its lease: it is declared dead if it stays silent
    drained: str | None = None  # why it takes nothing new, for people
    trouble: str | None = None  # what is wrong with it or its card, for people


def job(session: Session, whose: Scope, job_id: int, span: Span = Span()) -> JobView:
    """Return a job with some of its images. Raises NotFound, as for every job that is not in the scope."""
    row = session.scalar(select(Job).where(Job.id == job_id, whose.covers(Job.owner)))
    if row is None:
        raise no_job(job_id)
    return of_row(session, row, span)


def of_row(session: Session, row: Job, span: Span = Span(), images: Sequence[Image] | None = None) -> JobView:
    """Return a job that this transaction has read, or recorded with these images, of which `span` has no more.

    Raises NotFound if it was deleted meanwhile.
    """
    known = None if images is None else {row.id: [(image, None) for image in images]}
    seen = _views(session, [row], span, known)
    if not seen:
        raise no_job(row.id)
    return seen[0]


def several(session: Session, whose: Scope, job_ids: Collection[int], span: Span) -> dict[int, JobView]:
    """Return jobs by their ids, each with some of its images; those that are not in the scope are left out."""
    rows = session.scalars(select(Job).where(Job.id.in_(job_ids), whose.covers(Job.owner))).all()
    return {view.id: view for view in _views(session, rows, span)}


def owner(session: Session, whose: Scope, job_id: int) -> str:
    """Return whose job it is. Raises NotFound."""
    found = session.scalar(select(Job.owner).where(Job.id == job_id, whose.covers(Job.owner)))
    if found is None:
        raise no_job(job_id)
    return found


def finished(session: Session, whose: Scope, job_id: int, index: int | None = None) -> Finished:
    """Return the finished images of a job, or its image `index` if it is. Raises NotFound."""
    found = session.scalar(select(Job.params).where(Job.id == job_id, whose.covers(Job.owner)))
    if found is None:
        raise no_job(job_id)
    query = select(Image.index, Image.attempt, Image.changes).order_by(Image.index)
    deleted = exists().where(Picture.image_id == Image.id, Picture.deleted_at.is_not(None))
    query = query.where(Image.job_id == job_id, Image.state == ImageState.SUCCEEDED, not_(deleted))
    rows = session.execute(query if index is None else query.where(Image.index == index)).all()
    spec, unknown = stored.spec(found, {at: changes for at, _, changes in rows})
    return Finished({at: attempt for at, attempt, _ in rows}, spec, unknown)


def state(session: Session, whose: Scope, job_id: int) -> ImageState:
    """Return the displayed state of a job without reading its images. Raises NotFound."""
    found = states(session, whose, [job_id]).get(job_id)
    if found is None:
        raise no_job(job_id)
    return found


def states(session: Session, whose: Scope, job_ids: Collection[int]) -> dict[int, ImageState]:
    """Return the displayed state of each of these jobs that exists, without reading their images."""
    if not job_ids:
        return {}
    shown = select(Job.id, Job.state, _has(ImageState.RUNNING), _has(ImageState.QUEUED))
    shown = shown.where(Job.id.in_(job_ids), whose.covers(Job.owner))
    return {
        job_id: _displayed(JobState(found), {ImageState.RUNNING: is_running, ImageState.QUEUED: is_queued})
        for job_id, found, is_running, is_queued in session.execute(shown)
    }


def jobs(
    session: Session,
    whose: Scope,
    states: Collection[ImageState] = (),
    cursor: int | None = None,
    limit: int = 50,
) -> Page:
    """Return up to `limit` jobs in any of `states` (none given: in all) from before `cursor`."""
    query = select(Job).where(whose.covers(Job.owner)).order_by(Job.id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(Job.id < cursor)
    if states:
        query = query.where(or_(*(_is_in(ImageState(state)) for state in states)))
    rows = session.scalars(query).all()
    page = rows[:limit]
    return Page(tuple(_views(session, page, Span(limit=SHOWN))), page[-1].id if len(rows) > limit else None)


def latest_of_lessons(session: Session, owner: str, lessons: Collection[str]) -> dict[str, int]:
    """Return an owner's latest job of each of these experiments, by the experiment's name."""
    latest = select(Job.lesson, func.max(Job.id)).where(Job.owner == owner, Job.lesson.in_(lessons))
    return {str(lesson): job_id for lesson, job_id in session.execute(latest.group_by(Job.lesson))}


def open_at_door(session: Session, owner: str, door: str, most: int) -> list[int]:
    """Return the ids of an owner's first jobs that came through a door and have not ended, the oldest first."""
    came = select(Job.id).where(Job.owner == owner, Job.door == door, Job.state == JobState.OPEN)
    return list(session.scalars(came.order_by(Job.id).limit(most)))


def _is_in(state: ImageState) -> ColumnElement[bool]:
    """The condition that a job is displayed as `state`."""
    if state.is_final:
        return Job.state == state.value
    running, queued = _has(ImageState.RUNNING), _has(ImageState.QUEUED)
    shown = {
        ImageState.RUNNING: running,
        ImageState.QUEUED: and_(queued, not_(running)),
        ImageState.HELD: and_(not_(queued), not_(running)),
    }
    return and_(Job.state == JobState.OPEN, shown[state])


def _has(state: ImageState) -> ColumnElement[bool]:
    return exists().where(Image.job_id == Job.id, Image.state == state)


def _views(
    session: Session, rows: Sequence[Job], span: Span, known: Mapping[int, Sequence[_Shown]] | None = None
) -> list[JobView]:
    """Return the views of jobs, except of those deleted since `rows` were read, which have no images.

    A span with states is of one job.
    """
    ids = [row.id for row in rows]
    images_of = _images_of(session, ids, span) if known is None else known
    is_whole = span.after < 0 and not span.states and all(row.count <= span.limit for row in rows)
    counted = _counted_of(images_of) if is_whole else _count(session, ids)
    ahead = positions(session, [job_id for job_id in counted if counted[job_id].by_state[ImageState.QUEUED]])
    return [
        _view(row, counted[row.id], images_of[row.id], span, ahead.get(row.id)) for row in rows if row.id in counted
    ]


class _Counted(NamedTuple):
    """All images of a job."""

    by_state: dict[ImageState, int]
    started_at: datetime | None  # of the first that has started


def _count(session: Session, job_ids: Sequence[int]) -> dict[int, _Counted]:
    """Count the images of jobs; those without any are left out."""
    query = select(Image.job_id, Image.state, func.count(), func.min(Image.started_at)).where(Image.job_id.in_(job_ids))
    rows = session.execute(query.group_by(Image.job_id, Image.state))
    return _added((job_id, state, images, first) for job_id, state, images, first in rows)


def _counted_of(images_of: Mapping[int, Sequence[_Shown]]) -> dict[int, _Counted]:
    """Count the images of jobs that were read with all of theirs."""
    every = (image for shown in images_of.values() for image, _ in shown)
    return _added((image.job_id, image.state, 1, image.started_at) for image in every)


def _added(counts: Iterable[tuple[int, str, int, datetime | None]]) -> dict[int, _Counted]:
    """Add up numbers of images: of which job, in which state, how many, and when the first of them started."""
    found: dict[int, _Counted] = {}
    for job_id, name, images, first in counts:
        by_state, started_at = found.get(job_id, _Counted(dict.fromkeys(ImageState, 0), None))
        state = ImageState(name)
        if first is not None and state not in _WAITS:
            started_at = min(first, started_at or first)
        found[job_id] = _Counted(by_state | {state: by_state.get(state, 0) + images}, started_at)
    return found


_Shown = tuple[Image, datetime | None]  # and when its picture was deleted


def _images_of(session: Session, job_ids: Sequence[int], span: Span) -> Mapping[int, Sequence[_Shown]]:
    """Return the images of a span by their jobs, and one more if there is one."""
    found: dict[int, list[_Shown]] = defaultdict(list)
    if not span.limit:
        return found
    after = min(span.after, _LAST_INDEX)
    query = (
        select(Image, Picture.deleted_at)
        .outerjoin(Picture, and_(Picture.image_id == Image.id, Picture.deleted_at.is_not(None)))
        .where(Image.job_id.in_(job_ids), Image.index > after)
        .order_by(Image.job_id, Image.index)
    )
    if span.states:
        query = query.where(Image.state.in_(span.states)).limit(span.limit + 1)
    else:
        query = query.where(Image.index <= after + span.limit + 1)
    for image, deleted_at in session.execute(query):
        found[image.job_id].append((image, deleted_at))
    return found


def _view(row: Job, counted: _Counted, images: Sequence[_Shown], span: Span, position: int | None) -> JobView:
    counts, shown = counted.by_state, images[: span.limit]
    spec, unknown = stored.spec(row.params, {image.index: image.changes for image, _ in shown})
    return JobView(
        id=row.id,
        owner=row.owner,
        state=_displayed(JobState(row.state), counts),
        spec=spec,
        checkpoint=row.checkpoint,
        created_at=row.created_at,
        ended_at=row.ended_at,
        counts=counts,
        started_at=counted.started_at,
        images=tuple(_image_view(image, row, spec, deleted_at) for image, deleted_at in shown),
        next=shown[-1][0].index if len(images) > len(shown) else None,
        position=position,
        pool=row.pool,
        priority=row.priority,
        urgent=row.urgent,
        expires_at=row.expires_at,
        unknown=unknown,
        hashes=hashes_in(row.models),
        webhook=row.webhook,
        after=tuple(row.after),
        on=row.after_on,
    )


def _displayed(state: JobState, counts: Mapping[ImageState, int]) -> ImageState:
    if state != JobState.OPEN:
        return ImageState(state.value)
    return next((shown for shown in (ImageState.RUNNING, ImageState.QUEUED) if counts[shown]), ImageState.HELD)


def _image_view(image: Image, job: Job, spec: JobSpec, deleted_at: datetime | None) -> ImageView:
    state = ImageState(image.state)
    waits = state in _WAITS
    strange = f"a newer version of the farm says that it is {image.state}" if state == UNKNOWN else None
    return ImageView(
        id=image.id,
        index=image.index,
        state=state,
        seed=spec.image(image.index).seed,
        attempt=image.attempt,
        strikes=image.strikes,
        worker=image.worker,
        reason=image.reason or strange,
        queued_at=image.queued_at,
        expires_at=image.expires_at,
        started_at=None if waits else image.started_at,
        ended_at=image.ended_at,
        bytes=image.bytes,
        changes=image.changes,
        hashes=hashes_in(image.models or job.models),
        deleted_at=deleted_at,
    )


# An owner's share does not depend on the others' backlogs, so what stands before an image is its owner's own queue.
# Index: ix_images_lane_companions, by its first column.
BEFORE: Final = """
            FROM images AS before
            WHERE state = 'queued'
              AND before.owner = head.owner
              AND before.pool = head.pool
              -- An image that a worker died of holds up only others of its kind: each worker runs one at a time.
              AND (before.strikes = 0 OR head.strikes > 0)
              AND (NOT before.urgent, -before.priority, before.id) < (NOT head.urgent, -head.priority, head.id)
            LIMIT :farthest
"""
_POSITIONS = text(f"""
    SELECT head.job_id, ahead.images
    FROM (
        SELECT DISTINCT ON (job_id) job_id, id, owner, pool, urgent, priority, strikes
        FROM images
        WHERE job_id = ANY(:job_ids)
          AND state = 'queued'
        ORDER BY job_id, index
    ) AS head
    CROSS JOIN LATERAL (
        SELECT count(*) AS images
        FROM (
            SELECT
            {BEFORE}
        ) AS counted
    ) AS ahead
""")  # noqa: S608 - a constant


def positions(session: Session, job_ids: Sequence[int]) -> dict[int, int]:
    """Return, for each job with a queued image, how many images of its owner stand before the first one."""
    if not job_ids:
        return {}
    rows = session.execute(_POSITIONS, {"job_ids": list(job_ids), "farthest": FARTHEST})
    return {job_id: images for job_id, images in rows}  # noqa: C416 - to the type checker a row is not a pair


# By two partial indexes. Ended images are not counted.
_COUNTS = text("""
    SELECT (SELECT count(*) FROM images WHERE state = 'queued') AS queued,
           (SELECT count(*) FROM images WHERE worker_id IS NOT NULL) AS running
""")


def counts(session: Session) -> dict[ImageState, int]:
    """Return how many images wait and how many run, on the whole farm."""
    row = session.execute(_COUNTS).one()
    return {ImageState.QUEUED: row.queued, ImageState.RUNNING: row.running}


def picture_bytes(session: Session) -> int:
    """Return the size of all committed pictures of the farm that were not deleted."""
    removed = select(func.sum(Image.bytes)).join(Picture, Picture.image_id == Image.id)
    total, gone = select(func.sum(Image.bytes)), removed.where(Picture.removed_at.is_not(None))
    return int(session.scalar(total) or 0) - int(session.scalar(gone) or 0)


def workers(session: Session) -> list[WorkerView]:
    """Return the workers that have registered and neither left nor were declared dead, by name."""
    running = select(func.count()).where(Image.worker_id == Worker.id).scalar_subquery()
    query = (
        select(Worker, running, Worker.lease_until < func.clock_timestamp(), Drain.reason)
        .outerjoin(Drain, Drain.worker == Worker.name)
        .order_by(Worker.name, Worker.id)
    )
    return [_worker_view(row, images, drained, is_late=late) for row, images, late, drained in session.execute(query)]


def residents(stored: object) -> Iterator[str]:
    """Yield the checkpoints that a worker's row names, and nothing else that a newer version may say there."""
    yield from (one for one in stored if isinstance(one, str)) if isinstance(stored, list) else ()


def _worker_view(row: Worker, running: int, drained: str | None, *, is_late: bool) -> WorkerView:
    return WorkerView(
        id=row.id,
        name=row.name,
        host=row.host,
        pid=row.pid,
        card=row.card,
        card_name=row.card_name,
        pool=row.pool,
        slots=row.slots,
        running=running,
        state=WorkerState(row.state),
        phase=row.phase,
        resident=tuple(residents(row.resident)),
        models=tuple(resident_models(row.models)),
        load_seconds=row.load_seconds,
        started_at=row.started_at,
        beat_at=row.beat_at,
        is_late=is_late,
        drained=drained,
        trouble=row.trouble,
    )
