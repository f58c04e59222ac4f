"""A worker that paints as soon as a job is submitted: for doors that answer only when a job has ended."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy.orm import Session

from api.services import Services
from shared.db.sessions import Sessions, transact
from shared.db.tables import Job, Sheet
from shared.infotext import writer
from shared.media.storage import key, sheet_key
from shared.models import first_scan
from shared.queue import transitions
from shared.queue.claim import Claim
from tests.support.queueing import Farmhand, Workhand


@dataclass
class InstantWorker:
    """Stands in the place of `services.tickets.publish`: what is published is painted before the submission returns."""

    services: Services

    def __call__(self, pool: str, count: int) -> None:
        worker = scanned_worker(self.services.sessions, pool=pool)
        ended = set()
        while (claim := worker.claim()) is not None:
            self._paint(claim)
            ended.add(claim.job_id)
        for job_id in ended:
            transact(self.services.sessions, lambda session, job_id=job_id: self._draw_sheet(session, job_id))

    def _paint(self, claim: Claim) -> None:
        params = claim.params
        if params.prompt.startswith("fail: "):
            reason = params.prompt.removeprefix("fail: ")
            transact(self.services.sessions, lambda session: transitions.fail(session, claim, reason))
            return
        data = picture(params.seed % 256, "" if params.upscale else writer.text(params, version="1"))
        where = key(claim.job_id, claim.index, claim.attempt, "picture", params.format)
        self.services.storage.put(where, data)
        transact(self.services.sessions, lambda session: transitions.finish(session, claim, len(data)))

    def _draw_sheet(self, session: Session, job_id: int) -> None:
        """Have a sheet of the job, as the maintenance process would draw it of a sweep."""
        data = picture(200)
        ended_at = session.get_one(Job, job_id).ended_at
        session.merge(Sheet(job_id=job_id, end_id=job_id, ended_at=ended_at, width=16, height=16, bytes=len(data)))
        self.services.storage.put(sheet_key(job_id, job_id), data)


def scanned_worker(sessions: Sessions, pool: str = "default") -> Workhand:
    """Return a worker that has scanned the models folder, so that unknown names are unknown."""
    worker = Farmhand(sessions).worker(pool=pool)
    transact(sessions, first_scan.record_scan)
    return worker


def picture(grey: int = 128, text: str = "", side: int = 16) -> bytes:
    """Return a grey PNG that carries a text."""
    out, said = io.BytesIO(), PngInfo()
    if text:
        said.add_text("parameters", text)
    Image.new("RGB", (side, side), (grey,) * 3).save(out, "PNG", pnginfo=said)
    return out.getvalue()
