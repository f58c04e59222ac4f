"""Contact sheets: made when a sweep ends, out of the outbox, and made again when it ends again after a retry.

A sheet belongs to one end of its job. Its object has the end's id in its key, its row names the latest end for which
there is one. The row only moves on, so a sheet of an earlier end than the row's is garbage.
"""

from __future__ import annotations

from functools import partial

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import Sessions, transact
from shared.db.states import ImageState
from shared.db.tables import Job
from shared.jobs.stored import SWEEP
from shared.maintenance.outbox import EventKind, OutboxEvent
from shared.media.storage import Storage, sheet_key
from shared.queue import queries
from shared.queue.queries import MOST_IMAGES, JobView, Span
from shared.sheets import contact_sheet
from shared.sheets.drawing import Sheet
from shared.sheets.pictures import CellPictures

log = structlog.get_logger(__name__)

# A job that was retried or deleted meanwhile gets no row for this end: it has no use for the sheet.
_RECORD = text("""
    INSERT INTO sheets (job_id, end_id, ended_at, width, height, bytes)
    SELECT id, :end_id, ended_at, :width, :height, :bytes
    FROM jobs
    WHERE id = :job_id
      AND ended_at = :ended_at
    FOR KEY SHARE
    ON CONFLICT (job_id) DO UPDATE
    SET end_id = excluded.end_id,
        ended_at = excluded.ended_at,
        width = excluded.width,
        height = excluded.height,
        bytes = excluded.bytes
    WHERE sheets.end_id < excluded.end_id
""")

_LATEST = text("SELECT end_id FROM sheets WHERE job_id = :job_id")


def make(event: OutboxEvent, *, sessions: Sessions, storage: Storage, most_pixels: int) -> None:
    """Make the contact sheet of a sweep that has ended, unless there is one, and delete those of its earlier ends.

    Raises StorageError, Unavailable. Safe to do again, and at any time.
    """
    if event.kind != EventKind.JOB_ENDED:
        return
    job = transact(sessions, partial(_sweep_of, event=event))
    if job is None:
        return
    key = sheet_key(job.id, event.id)
    if not transact(sessions, partial(_is_recorded, event=event)):
        with CellPictures(most_pixels) as pictures:
            sheet = contact_sheet.draw(job, storage, pictures)
        if not storage.exists(key):  # of a process that was killed before it recorded it, perhaps of another version
            storage.put(key, sheet.png)
        transact(sessions, partial(_record, event=event, sheet=sheet, size=storage.size(key) or len(sheet.png)))
        log.info("contact sheet made", job=job.id, width=sheet.width, height=sheet.height, bytes=len(sheet.png))
    delete_older(sessions, storage, job.id)


def delete_older(sessions: Sessions, storage: Storage, job_id: int) -> int:
    """Delete the sheets of a job that are older than the one its row names; return how many. Raises StorageError."""
    latest = transact(sessions, lambda session: session.scalar(_LATEST, {"job_id": job_id}))
    older = [sheet for sheet in storage.sheets_of(job_id) if latest is not None and sheet.end < latest]
    for sheet in older:
        storage.discard(sheet)
    return len(older)


def _sweep_of(session: Session, event: OutboxEvent) -> JobView | None:
    """Return the job of an event if it is a sweep with pictures and has not been opened again since."""
    row = session.get(Job, event.job_id)
    if row is None or row.ended_at != event.at or SWEEP not in row.params:
        return None
    job = queries.job(session, EVERYBODYS, event.job_id, Span(limit=MOST_IMAGES))
    return job if job.spec.axes and job.counts.get(ImageState.SUCCEEDED) else None


def _is_recorded(session: Session, event: OutboxEvent) -> bool:
    latest: int | None = session.scalar(_LATEST, {"job_id": event.job_id})
    return latest is not None and latest >= event.id


def _record(session: Session, event: OutboxEvent, sheet: Sheet, size: int) -> None:
    said = {"width": sheet.width, "height": sheet.height, "bytes": size}
    session.execute(_RECORD, said | {"job_id": event.job_id, "end_id": event.id, "ended_at": event.at})
