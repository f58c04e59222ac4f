"""The shapes of the API's JSON: what a job, an image, a checkpoint and a worker look like from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, Field

from shared.events import Progress
from shared.params import RenderParams
from shared.queue.views import ImageView, JobView, Page
from shared.states import FINAL, ImageState

API = "/api/v1"
DisplayState = Literal["held", "queued", "running", "succeeded", "failed", "cancelled"]


class ImageLinks(BaseModel):
    """Where an image's bytes are; null while there are none."""

    picture: str | None
    thumbnail: str | None
    preview: str | None


class ImageBody(BaseModel):
    """One image of a job."""

    index: int
    state: DisplayState
    seed: int
    attempt: int = Field(description="How often a worker has taken it.")
    step: int
    steps: int
    phase: str | None = Field(description="What its worker does with it now.")
    progress: float = Field(description="0 to 1.")
    reason: str | None = Field(description="Why it failed or is held.")
    worker: str | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None = Field(description="From its start to its end.")
    bytes: int | None = Field(description="Size of the picture.")
    links: ImageLinks

    @classmethod
    def of(cls, image: ImageView, live: Progress | None, job_id: int, steps: int) -> Self:
        """Return what `image` looks like; `live` counts only for the attempt that runs now."""
        running = image.state == ImageState.RUNNING
        now = live if live is not None and running and live.attempt == image.attempt else None
        step = steps if image.state == ImageState.SUCCEEDED else now.step if now else 0
        return cls(
            index=image.index,
            state=image.state.value,
            seed=image.seed,
            attempt=image.attempt,
            step=step,
            steps=steps,
            phase=now.phase if now else None,
            progress=1.0 if image.state in FINAL else step / steps,
            reason=image.reason,
            worker=image.worker,
            queued_at=image.queued_at,
            started_at=image.started_at,
            ended_at=image.ended_at,
            seconds=_seconds(image.started_at, image.ended_at),
            bytes=image.bytes,
            links=_image_links(job_id, image.index, image.state),
        )


class Timings(BaseModel):
    """How long a job has waited and rendered, in seconds; null where that has not begun or not ended."""

    waited_seconds: float | None
    render_seconds: float | None


class JobLinks(BaseModel):
    """What can be asked about a job, and done to it."""

    self: str
    page: str
    events: str
    cancel: str
    retry: str
    zip: str

    @classmethod
    def of(cls, job_id: int) -> JobLinks:
        """Return the links of a job."""
        here = f"{API}/jobs/{job_id}"
        return cls(
            self=here,
            page=f"/jobs/{job_id}",
            events=f"{here}/events",
            cancel=f"{here}/cancel",
            retry=f"{here}/retry",
            zip=f"{here}/zip",
        )


class JobBody(BaseModel):
    """A job with its images."""

    id: int
    owner: str
    state: DisplayState
    params: RenderParams
    created_at: datetime
    ended_at: datetime | None
    counts: dict[str, int] = Field(description="Images by state.")
    progress: float = Field(description="0 to 1.")
    position: int | None = Field(description="Queued images ahead of its first queued one.")
    images: list[ImageBody] = Field(description="By index; in a list of jobs the first ones.")
    timings: Timings
    links: JobLinks

    @property
    def is_final(self) -> bool:
        """True when every image has ended."""
        return self.state in FINAL

    @classmethod
    def of(cls, job: JobView, live: Mapping[int, Progress]) -> Self:
        """Return what `job` looks like with the latest progress of its images, by index."""
        images = [ImageBody.of(image, live.get(image.index), job.id, job.params.steps) for image in job.images]
        return cls(
            id=job.id,
            owner=job.owner,
            state=job.state.value,
            params=job.params,
            created_at=job.created_at,
            ended_at=job.ended_at,
            counts={state.value: job.counts[state] for state in ImageState},
            progress=_progress(job, images),
            position=job.position,
            images=images,
            timings=_timings(job),
            links=JobLinks.of(job.id),
        )


def _progress(job: JobView, images: list[ImageBody]) -> float:
    """Return how much of the job is done; of images that are not shown only those that have ended count."""
    ended = sum(job.counts[state] for state in FINAL)
    running = sum(image.progress for image in images if image.state == ImageState.RUNNING.value)
    return round((ended + running) / job.params.count, 4)


def _timings(job: JobView) -> Timings:
    started = min((image.started_at for image in job.images if image.started_at), default=None)
    return Timings(waited_seconds=_seconds(job.created_at, started), render_seconds=_seconds(started, job.ended_at))


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 3) if start and end else None


def _image_links(job_id: int, index: int, state: ImageState) -> ImageLinks:
    here = f"{API}/jobs/{job_id}/images/{index}"
    done = state == ImageState.SUCCEEDED
    return ImageLinks(
        picture=f"{here}/picture.png" if done else None,
        thumbnail=f"{here}/thumbnail.webp" if done else None,
        preview=f"{here}/preview.webp" if state == ImageState.RUNNING else None,
    )


class JobPageBody(BaseModel):
    """A page of jobs, the latest first."""

    jobs: list[JobBody]
    next: int | None = Field(description="`cursor` of the next page; null on the last one.")

    @classmethod
    def of(cls, page: Page, progress: Callable[[int], Mapping[int, Progress]]) -> Self:
        """Return what `page` looks like; `progress` is asked for those jobs alone that run."""
        running = ImageState.RUNNING
        return cls(
            jobs=[JobBody.of(job, progress(job.id) if job.state == running else {}) for job in page.jobs],
            next=page.next,
        )


class ChangeBody(BaseModel):
    """What a cancel or a retry changed."""

    images: int = Field(description="How many images it changed.")
    job: JobBody
