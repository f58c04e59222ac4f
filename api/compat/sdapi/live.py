"""The course of an owner's requests at this door: their progress, and their end before its time.

There the whole program has one job, and every client sees it and may end it. Here everybody sees and ends their own.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from api.compat.sdapi.options import DOOR
from api.compat.sdapi.pictures import encoded
from api.schemas.jobs import ImageBody, JobBody
from api.services import Services
from api.use_cases import doors, images, jobs
from shared.accounts.principal import Principal
from shared.db.states import FINAL, ImageState
from shared.errors import Conflict, NotFound

_BEGUN: Final = 0.01  # of the progress of what waits: 0 means that there is nothing


def progress(services: Services, who: Principal, *, with_image: bool) -> dict[str, Any]:
    """Return how far the owner's requests are; all is 0 while there is none."""
    found = doors.open_jobs(services, who, DOOR)
    total = sum(job.count for job in found)
    done = sum(job.counts[state] for job in found for state in FINAL)
    share = min(1.0, _BEGUN + sum(job.progress * job.count for job in found) / total) if total else 0.0
    running = _running(found)
    state = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": f"job {found[0].id}" if found else "",
        "job_count": total,
        "job_timestamp": f"{found[0].created_at:%Y%m%d%H%M%S}" if found else "0",
        "job_no": done,
        "sampling_step": running[1].step if running else 0,
        "sampling_steps": running[1].steps if running else 0,
    }
    return {
        "progress": share,
        "eta_relative": _left(found, share),
        "state": state,
        "current_image": _preview(services, who, *running) if running and with_image else None,
        "textinfo": next((job.waiting.text for job in found if job.waiting), None),
    }


def skip(services: Services, who: Principal) -> None:
    """Cancel the image that is rendered now; of several the first."""
    if running := _running(doors.open_jobs(services, who, DOOR)):
        with suppress(NotFound, Conflict):
            jobs.cancel(services, who, running[0].id, running[1].index)


def _running(found: list[JobBody]) -> tuple[JobBody, ImageBody] | None:
    """Return the first image that is rendered now, with its job."""
    return next(
        ((job, image) for job in found for image in job.images if image.state == ImageState.RUNNING.value), None
    )


def _left(found: list[JobBody], share: float) -> float:
    """Return the seconds that are left if it goes on as it went; 0: not known."""
    starts = [image.started_at for job in found for image in job.images if image.started_at]
    if not starts or share <= _BEGUN:
        return 0.0
    passed = (datetime.now(UTC) - min(starts)).total_seconds()
    return max(0.0, passed / share - passed)


def _preview(services: Services, who: Principal, job: JobBody, image: ImageBody) -> str | None:
    if not image.has_preview:
        return None
    with suppress(NotFound):
        return encoded(images.preview(services, who, job.id, image.index))
    return None
