"""The invariants of a farm after any trouble, read from SQL, the storage and logs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.states import FINAL, ImageState, JobState
from shared.db.tables import History, Image, Job, Outbox, Sheet, WebhookDelivery, Worker
from shared.jobs.stored import SWEEP
from shared.maintenance.garbage import collect_attempts, collect_jobs, collect_sheets
from shared.media.storage import MARKER, Storage, key, sheet_key
from shared.queue.history import Event
from shared.queue.reaper import MOST_CRASHES
from tests.chaos import messages
from tests.chaos.farm import Farm
from tests.chaos.people import Asked


def unsettled(farm: Farm) -> list[str]:
    """Return what has not ended yet: images, jobs, rows of workers that are dead."""
    with farm.sessions() as session:
        images = session.scalars(select(Image).where(Image.state.not_in(FINAL)).order_by(Image.id)).all()
        jobs = session.scalars(select(Job.id).where(Job.state == JobState.OPEN)).all()
        workers = session.scalars(select(Worker)).all()
        events = session.execute(select(Outbox.id, Outbox.job_id).where(Outbox.delivered_at.is_(None))).all()
        unsent = select(WebhookDelivery.id, WebhookDelivery.job_id).where(WebhookDelivery.delivered_at.is_(None))
        waiting = session.execute(unsent).all()
    live = farm.live_pids()
    told = [f"image {image.id} of job {image.job_id} is {image.state}, attempt {image.attempt}" for image in images]
    told += [f"job {job} is open" for job in jobs]
    told += [f"worker {row.id} ({row.name}) is dead, its row is there" for row in workers if row.pid not in live]
    told += [f"event {event} of job {job} is not delivered" for event, job in events]
    told += [f"message {message} of job {job} has not arrived" for message, job in waiting]
    pending = sum(asked.id is None and not asked.is_refused for asked in farm.people.jobs)
    return told + ([f"{pending} submissions have no answer"] if pending else [])


def problems(farm: Farm) -> list[str]:
    """Return everything that is wrong with a farm that has settled."""
    storage = Storage(str(farm.ground.storage))
    collect_jobs(farm.sessions, storage)
    collect_attempts(farm.sessions, storage)
    collect_sheets(farm.sessions, storage)
    storage.tidy(0)  # what looks left on a disk that let nothing be deleted any more: a chore of every hour
    with farm.sessions() as session:
        found = [
            *_of_jobs(session, farm.people.jobs),
            *_of_images(session, farm.people.jobs),
            *_of_history(session),
            *_of_outbox(session),
            *_of_dependants(session, farm.people.jobs),
            *messages.unasked(session, farm.people.jobs),
            *messages.problems(session, farm.receiver.receiver, farm.troubles),
            *_of_sheets(session, storage),
            *_of_files(session, farm, storage),
        ]
    return found + list(_of_logs(farm))


def _of_jobs(session: Session, asked: Sequence[Asked]) -> Iterator[str]:
    jobs = {job.id: job for job in session.scalars(select(Job))}
    known = Counter(one.id for one in asked if not one.is_refused)
    yield from (f"job {job} was recorded, but nobody asked for it" for job in jobs.keys() - known.keys())
    yield from (f"job {job} is there for {times} submissions" for job, times in known.items() if times > 1)
    for job_id in known.keys() & jobs.keys():
        states = session.scalars(select(Image.state).where(Image.job_id == job_id)).all()
        yield from _of_job(jobs[job_id], states)
    yield from (f"job {job} was accepted, and is lost" for job in known.keys() - jobs.keys())


def _of_job(job: Job, states: Sequence[str]) -> Iterator[str]:
    open_images = sum(state not in FINAL for state in states)
    if len(states) != job.count:
        yield f"job {job.id} has {len(states)} images of {job.count}"
    counted = job.unfinished, job.failed, job.cancelled
    if counted != (open_images, states.count(ImageState.FAILED), states.count(ImageState.CANCELLED)):
        yield f"job {job.id} counts {counted} unfinished, failed and cancelled; its images are {dict(Counter(states))}"
    if job.state != _state(states):
        yield f"job {job.id} is {job.state}, its images are {dict(Counter(states))}"
    if (job.ended_at is None) != (job.state == JobState.OPEN):
        yield f"job {job.id} is {job.state} and ended at {job.ended_at}"


def _state(states: Sequence[str]) -> JobState:
    if not FINAL.issuperset(states):
        return JobState.OPEN
    if ImageState.FAILED in states:
        return JobState.FAILED
    return JobState.CANCELLED if ImageState.CANCELLED in states else JobState.SUCCEEDED


def _of_images(session: Session, asked: Sequence[Asked]) -> Iterator[str]:
    by_id = {one.id: one for one in asked}
    unsuccessful = _unsuccessful(session)
    for image in session.scalars(select(Image).order_by(Image.id)):
        one = by_id.get(image.job_id)
        told = f"image {image.id} of job {image.job_id} {image.state}"
        if image.state == ImageState.CANCELLED and not (one and (one.cancels or _is_hopeless(one, unsuccessful))):
            yield f"{told}, but nobody asked for that"
        if image.state == ImageState.FAILED and not _is_real(image, one):
            yield f"{told} without a real reason: {image.reason}"
        if image.state == ImageState.SUCCEEDED and one and str(one.body["prompt"]).startswith("fail:"):
            yield f"{told}, but it was to fail"
        if image.worker_id is not None or (image.state in FINAL and image.ended_at is None):
            yield f"{told}, worker {image.worker_id}, ended at {image.ended_at}"


def _is_real(image: Image, asked: Asked | None) -> bool:
    """True where somebody ordered the failure, or three workers died of the image: for no outage, however long."""
    reason = image.reason or ""
    is_ordered = asked is not None and str(asked.body["prompt"]) == f"fail: {reason}"
    return is_ordered or image.strikes >= MOST_CRASHES


def _of_history(session: Session) -> Iterator[str]:
    """Yield doubled work in the history: one committed result for each image that succeeded, else none."""
    finished: dict[int, list[int]] = defaultdict(list)
    claimed: dict[int, list[int]] = defaultdict(list)
    lines = {Event.FINISHED: finished, Event.CLAIMED: claimed}
    for line in session.scalars(select(History).where(History.event.in_(lines)).order_by(History.id)):
        lines[Event(line.event)][line.image_id or 0].append(line.attempt or 0)
    for image in session.scalars(select(Image)):
        committed = finished.pop(image.id, [])
        if committed != ([image.attempt] if image.state == ImageState.SUCCEEDED else []):
            yield f"image {image.id} {image.state} in attempt {image.attempt}; committed were attempts {committed}"
        attempts = claimed.pop(image.id, [])
        if attempts != list(range(1, image.attempt + 1)):
            yield f"image {image.id} is in attempt {image.attempt}; claimed were {attempts}"
    yield from (f"image {image} is not there, and was claimed or committed" for image in finished | claimed)


def _of_outbox(session: Session) -> Iterator[str]:
    """Yield what is wrong with the ends of jobs: one event for each, and no end that nobody can have made."""
    ends: dict[int, list[datetime]] = defaultdict(list)
    for event in session.scalars(select(Outbox)):
        ends[event.job_id].append(event.at)
        if event.tries < 1:
            yield f"event {event.id} of job {event.job_id} is delivered, and nobody took it"
    # A line of each image that was retried; the lines of one retry have one time.
    retried = select(History.job_id, History.at).where(History.event == Event.RETRIED).distinct()
    retries = Counter(job for job, _ in session.execute(retried))
    for job in session.scalars(select(Job)):
        at = ends.pop(job.id, [])
        if at.count(job.ended_at) != 1 or len(set(at)) < len(at) or len(at) > 1 + retries[job.id]:
            yield f"job {job.id} ended at {job.ended_at}, after {retries[job.id]} retries; its events are of {at}"
    yield from (f"an event is of job {job}, which is not there" for job in ends)


def _unsuccessful(session: Session) -> set[int]:
    """Return the jobs that have ended without success, though they may have succeeded later."""
    return set(session.scalars(select(Outbox.job_id).where(Outbox.state != JobState.SUCCEEDED)))


def _is_hopeless(asked: Asked, unsuccessful: Collection[int | None]) -> bool:
    """True of a job that waited for the success of one that has ended without."""
    return asked.after is not None and asked.body["on"] == "success" and asked.after.id in unsuccessful


def _of_dependants(session: Session, asked: Sequence[Asked]) -> Iterator[str]:
    """Yield the jobs that waited for another and were released twice, too early or never, or refused without cause."""
    unsuccessful, ends = _unsuccessful(session), dict[int | None, datetime]()
    for event in session.scalars(select(Outbox).order_by(Outbox.at.desc())):
        ends[event.job_id] = event.at  # the first one in the end
    for one in [one for one in asked if one.after]:
        if one.is_refused and not _is_hopeless(one, unsuccessful):
            yield f"submission {one.key} was refused, though job {one.after.id} has always succeeded"
        lines = session.scalars(select(History).where(History.job_id == one.id).order_by(History.id)).all()
        if one.id and session.get_one(Job, one.id).waits and not one.cancels:
            yield f"job {one.id} waits for job {one.after.id}"
        released = Counter(line.image_id for line in lines if line.event == Event.RELEASED)
        yield from (f"image {image} of job {one.id} was released twice" for image in released if released[image] > 1)
        is_retried = any(line.event == Event.RETRIED for line in lines)  # which may not have waited
        begun = [line.at for line in lines if line.event == Event.CLAIMED]
        if begun and not is_retried and (one.after.id not in ends or begun[0] < ends[one.after.id]):
            yield f"job {one.id} began before job {one.after.id} had ended, which it waited for"


def _of_sheets(session: Session, storage: Storage) -> Iterator[str]:
    """Yield the sweeps that have ended with a picture, and have no contact sheet of this end."""
    for job in session.scalars(select(Job).where(Job.params.has_key(SWEEP))):
        sheet = session.get(Sheet, job.id)
        is_there = sheet and sheet.ended_at == job.ended_at and storage.exists(sheet_key(job.id, sheet.end_id))
        if not is_there and job.count > job.failed + job.cancelled:
            yield f"job {job.id} ended at {job.ended_at}; its contact sheet is of {sheet and sheet.ended_at}"


def _of_files(session: Session, farm: Farm, storage: Storage) -> Iterator[str]:
    """Yield what is missing in the storage, and what lies there though no image's committed attempt has it."""
    expected = {MARKER, *(sheet_key(sheet.job_id, sheet.end_id) for sheet in session.scalars(select(Sheet)))}
    films = {one.id for one in farm.people.jobs if one.body["film"]}
    for image in session.scalars(select(Image).where(Image.state == ImageState.SUCCEEDED)):
        kinds = ["picture", "thumbnail", *(["film", "strip"] if image.job_id in films else [])]
        keys = {kind: key(image.job_id, image.index, image.attempt, kind) for kind in kinds}
        expected |= set(keys.values())
        missing = [kind for kind, name in keys.items() if not storage.exists(name)]
        yield from (f"the {kind} of image {image.id} is missing" for kind in missing)
        if not missing and len(storage.get(keys["picture"])) != image.bytes:
            yield f"the picture of image {image.id} has not the {image.bytes} bytes that were committed"
    root = farm.ground.storage
    # A check that was cut off leaves its file; `Storage.tidy` deletes it when it is old.
    stored = {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not path.name.removeprefix(".").startswith("check-")
    }
    yield from (f"{name} lies in the storage, of no committed image" for name in sorted(stored - expected))


# Where a new entry begins: what explains one, and the rest of a statement, belong to it.
_ENTRY = re.compile(r"\n(?=\d{4}-\d\d-\d\d [^\n]*\] (?!DETAIL|HINT|CONTEXT|STATEMENT|QUERY))")


def _of_logs(farm: Farm) -> Iterator[str]:
    for line in _ENTRY.split(farm.postgres_log()):
        # Two claims of one worker, the first of them on a connection that was cut, may race for the one struck image.
        if any(word in line for word in ("deadlock", "violates", "PANIC")) and "ix_images_struck" not in line:
            yield f"PostgreSQL logged: {line}"
    for log in farm.folder.glob("*.log"):
        yield from (
            f"{log.name}: {line[:2000]}" for line in log.read_text("utf-8", "replace").splitlines() if _is_bad(line)
        )


def _is_bad(line: str) -> bool:
    """True for an error that nobody expected; Celery logs each lost connection, dead workers their death."""
    is_ours = '"level": "error"' in line and '"logger": "celery' not in line and "declared dead by others" not in line
    return is_ours or line.startswith("Traceback")
