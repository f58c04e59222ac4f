"""The course of an owner's requests at this door: their progress, and their end before its time.

There the whole program has one job, and every client sees it and may end it. Here everybody sees and ends their own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import Field

from api.compat.sdapi.bodies import Body
from api.compat.sdapi.options import DOOR
from api.compat.sdapi.pictures import encoded
from api.schemas.jobs import ImageBody, JobBody
from api.services import Services
from api.use_cases import doors, images, jobs
from shared.accounts.principal import Principal
from shared.db.states import FINAL, ImageState
from shared.errors import Conflict, NotFound

_NUMBERED: Final = re.compile(r"job \d{1,19}")
_BEGUN: Final = 0.01  # of the progress of what waits: 0 means that there is nothing


def progress(services: Services, who: Principal, *, with_image: bool) -> dict[str, Any]:
    """Return how far the owner's requests are; all is 0 while there is none."""
    found = doors.open_jobs(services, who, DOOR)
    total = sum(job.count for job in found)
    done = sum(job.counts[state] for job in found for state in FINAL)
    share = _share(found)
    running = _running(found)
    state = {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": _name(found[0]) if found else "",
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


class Task(Body):
    """The request of `/internal/progress`."""

    id_task: str = Field("", description="`job 12`, as `state.job` and `pending-tasks` have it; else all requests.")
    id_live_preview: int = Field(-1, description="Of the preview that the client has: the same is not sent again.")
    live_preview: bool = True


def task(services: Services, who: Principal, asked: Task) -> dict[str, Any]:
    """Return how far one of the owner's requests is, or all of them."""
    found = doors.open_jobs(services, who, DOOR)
    if _NUMBERED.fullmatch(asked.id_task):
        found = [job for job in found if _name(job) == asked.id_task]
    running, share = _running(found), _share(found)
    step = running[1].step if running else -1
    is_new = running and asked.live_preview and step != asked.id_live_preview
    preview = _preview(services, who, *running) if running and is_new else None
    return {
        "active": running is not None,
        "queued": bool(found) and running is None,
        "completed": not found,
        "progress": share if running else None,
        "eta": _left(found, share) or None,
        "live_preview": preview and f"data:image/webp;base64,{preview}",
        "id_live_preview": step if preview else asked.id_live_preview,
        "textinfo": next((job.waiting.text for job in found if job.waiting), None),
    }


def pending(services: Services, who: Principal) -> dict[str, Any]:
    """Return the owner's requests that have not ended."""
    names = [_name(job) for job in doors.open_jobs(services, who, DOOR)]
    return {"size": len(names), "tasks": names}


def _name(job: JobBody) -> str:
    return f"job {job.id}"


def _share(found: list[JobBody]) -> float:
    """Return how much of all that is open is done; 0 only if there is nothing."""
    total = sum(job.count for job in found)
    return min(1.0, _BEGUN + sum(job.progress * job.count for job in found) / total) if total else 0.0


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
