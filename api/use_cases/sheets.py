"""Contact sheets: the picture of a sweep that has ended, and any job's images as a table."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import spreadsheets
from api.languages import _
from api.schemas.jobs import JobBody
from api.schemas.sheets import SheetBody
from api.sentences import said
from api.services import Services
from api.use_cases import jobs
from api.use_cases.images import Stored
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.db.states import FINAL
from shared.db.tables import Job, Sheet
from shared.errors import NotFound
from shared.media.storage import sheet_key
from shared.queue.queries import MOST_IMAGES, Span
from shared.sheets.values import shared_values


def picture(services: Services, who: Principal, job_id: int) -> Stored:
    """Return the contact sheet of a sweep that has ended. Raises NotFound that says why there is none, or none yet."""
    job = jobs.job(services, who, job_id)
    end = latest(services, job)
    if end is None:
        raise NotFound(_missing(job))
    return Stored(services, sheet_key(job_id, end))


def latest(services: Services, job: JobBody) -> int | None:
    """Return for which of its ends a job has a contact sheet; None: for none, or it was opened again since."""

    def end(session: Session) -> int | None:
        query = select(Sheet.end_id).join(Job, Job.id == Sheet.job_id)
        return session.scalar(query.where(Job.id == job.id, Job.ended_at == Sheet.ended_at))

    return transact(services.sessions, end) if job.axes and job.is_final else None


def table(services: Services, who: Principal, job_id: int) -> SheetBody:
    """Return all images of a job with their titles and what they share. Raises NotFound."""
    job = jobs.job(services, who, job_id, Span(limit=MOST_IMAGES))
    indexes = [] if job.params.upscale else [image.index for image in job.images]
    return SheetBody.from_job(job, dict(shared_values(job.spec, indexes)))


def as_csv(sheet: SheetBody) -> str:
    """Return a sheet as comma-separated values: a line for each cell, below the names of the columns.

    It is in the language of the request; the names of what changes are the API's in all languages. What a spreadsheet
    would run as a formula is written as text. Axes of one label are told apart by what they vary, or by a number.
    """
    labels = [" ".join(part for part in (said(axis.label), axis.of) if part) for axis in sheet.axes]
    times = Counter(labels)
    headings = [label if times[label] == 1 else f"{label} {number}" for number, label in enumerate(labels, 1)]
    changed = dict.fromkeys(name for cell in sheet.cells for name in cell.changes)
    behind = [_("seconds"), _("reason"), _("picture")]
    lines: list[list[object]] = [[_("index"), _("state"), *headings, _("seed"), *changed, *behind]]
    for cell in sheet.cells:
        values = [cell.changes.get(name) for name in changed]
        line = [cell.index, _(cell.state), *cell.titles, cell.seed, *values]
        line += [cell.seconds, said(cell.reason or ""), cell.picture]
        lines.append(line)
    return spreadsheets.written(lines)


def _missing(job: JobBody) -> str:
    """Return why a job has no contact sheet, or none yet."""
    if not job.axes:
        return f"Job {job.id} has no axes: contact sheets are made of jobs whose images differ along axes."
    if job.state not in FINAL:
        return f"The contact sheet of job {job.id} is made when all its images have ended."
    if not job.counts["succeeded"]:
        return f"Job {job.id} has no contact sheet: none of its images succeeded."
    return f"The contact sheet of job {job.id} is being made. Ask again in a moment."
