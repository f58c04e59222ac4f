"""What `farm top` shows, as the API tells it to a key of any role."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cli.jobs import title
from client.async_client import AsyncClient
from client.client import FINAL, Json
from client.errors import Forbidden, NotFound
from client.shapes import Image, Job

_OPEN: Final = ("running", "queued", "held")
_PAGE: Final = 200
_MOST_JOBS: Final = 1000
_FOLLOWED: Final = 8  # running jobs whose images are asked for
_ENDED_LATELY: Final = timedelta(minutes=10)
_WINDOW_SECONDS: Final = 8.0  # over which steps are counted


@dataclass(frozen=True)
class OpenJob:
    """A job that has not ended; `prompt` is empty where it is somebody else's."""

    id: int
    owner: str
    state: str
    counts: dict[str, int]
    created_at: str
    prompt: str

    @property
    def ended(self) -> int:
        """Images that have ended."""
        return sum(self.counts.get(state, 0) for state in FINAL)


@dataclass(frozen=True)
class Rendering:
    """An image on a worker."""

    job: int
    index: int
    attempt: int
    worker: str
    step: int
    steps: int
    phase: str


@dataclass(frozen=True)
class Look:
    """The farm at one moment."""

    url: str
    at: float  # monotonic
    workers: tuple[Json, ...]
    died: tuple[Json, ...]
    jobs: tuple[OpenJob, ...]
    has_more: bool  # open jobs than these
    rendering: tuple[Rendering, ...]
    ended: tuple[Job, ...]
    sees_all: bool  # jobs of everybody

    @property
    def owners(self) -> dict[str, dict[str, int]]:
        """Return for each owner its jobs, and its images by state."""
        found: dict[str, dict[str, int]] = {}
        for job in self.jobs:
            row = found.setdefault(job.owner, dict.fromkeys(("jobs", *_OPEN), 0))
            row["jobs"] += 1
            for state in _OPEN:
                row[state] += job.counts.get(state, 0)
        return found


async def look(client: AsyncClient) -> Look:
    """Return the farm as it is now. Raises the errors of `client.errors`."""
    workers, own, ended, everybodys = await asyncio.gather(
        client.catalogue("workers"), client.jobs(_OPEN, _PAGE), client.jobs(tuple(FINAL), _PAGE), _queue(client)
    )
    prompts = {job["id"]: title(job["params"]) for job in own["jobs"]}
    listed = everybodys or own
    jobs = tuple(_open_job(job, prompts) for job in listed["jobs"])
    running = [job.id for job in jobs if job.state == "running"][:_FOLLOWED]
    images = await asyncio.gather(*(_running(client, job_id) for job_id in running))
    return Look(
        url=client.url,
        at=time.monotonic(),
        workers=tuple(workers["workers"]),
        died=tuple(workers.get("ended", ())),
        jobs=jobs,
        has_more=listed["next"] is not None,
        rendering=tuple(one for some in images for one in some),
        ended=tuple(_ended_lately(ended["jobs"])),
        sees_all=everybodys is not None,
    )


async def _queue(client: AsyncClient) -> Json | None:
    """Return everybody's open jobs; None for who may not see them, or an API of an older version."""
    try:
        found = page = await client.queue(limit=_PAGE)
        while page["next"] is not None and len(found["jobs"]) < _MOST_JOBS:
            page = await client.queue(page["next"], _PAGE)
            found["jobs"] += page["jobs"]
    except (Forbidden, NotFound):
        return None
    return {"jobs": found["jobs"], "next": page["next"]}


async def _running(client: AsyncClient, job_id: int) -> list[Rendering]:
    """Return the images of a job that run; none of somebody else's job."""
    with suppress(NotFound):
        page = await client.images(job_id, limit=_PAGE, state="running")
        return [_rendering(job_id, image) for image in page["images"]]
    return []


def _rendering(job_id: int, image: Image) -> Rendering:
    return Rendering(
        job=job_id,
        index=image["index"],
        attempt=image["attempt"],
        worker=image["worker"] or "",
        step=image["step"],
        steps=image["steps"],
        phase=image["phase"] or "",
    )


def _open_job(job: Any, prompts: dict[int, str]) -> OpenJob:  # noqa: ANN401 - of either list
    return OpenJob(job["id"], job["owner"], job["state"], job["counts"], job["created_at"], prompts.get(job["id"], ""))


def _ended_lately(jobs: Iterable[Job]) -> list[Job]:
    since = datetime.now(UTC) - _ENDED_LATELY
    lately = [job for job in jobs if job["ended_at"] and datetime.fromisoformat(job["ended_at"]) > since]
    return sorted(lately, key=lambda job: job["ended_at"] or "", reverse=True)


def steps_per_second(looks: Sequence[Look]) -> dict[str, float]:
    """Return the steps a second of each worker, by those of its images that the last looks saw."""
    if not looks:
        return {}
    last = looks[-1]
    rates: dict[str, float] = {}
    for image in last.rendering:
        for earlier in looks:
            before = next((one for one in earlier.rendering if _same(one, image)), None)
            if before is not None and last.at > earlier.at and last.at - earlier.at <= _WINDOW_SECONDS:
                made = max(0, image.step - before.step) / (last.at - earlier.at)
                rates[image.worker] = rates.get(image.worker, 0.0) + made
                break
    return rates


def _same(one: Rendering, other: Rendering) -> bool:
    return (one.job, one.index, one.attempt, one.worker) == (other.job, other.index, other.attempt, other.worker)
