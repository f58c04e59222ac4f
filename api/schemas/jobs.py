"""The shapes of the API's JSON: what a job, an image, a checkpoint and a worker look like from outside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, Field

from shared.db.states import FINAL, ImageState
from shared.messaging.events import Progress
from shared.params.render import FileFormat, RenderParams
from shared.queue.explain import Cause, Waiting
from shared.queue.queries import ImageView, JobView, Page

API = "/api/v1"
EXTENSIONS: Final[dict[FileFormat, str]] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
"""How the names of picture files end, by their format."""
DisplayState = Literal["held", "queued", "running", "succeeded", "failed", "cancelled"]
ShownState = DisplayState | Literal["unknown"]  # where a newer version wrote another one


@dataclass(frozen=True)
class Live:
    """What Redis tells of a job's images, by index: the latest progress, and which of them can be seen so far."""

    progress: Mapping[int, Progress] = field(default_factory=dict)
    previews: Collection[int] = ()


NOTHING_LIVE: Final = Live()


def upload_link(sha256: str) -> str:
    """Return where an upload's bytes are."""
    return f"{API}/uploads/{sha256}"


class UploadBody(BaseModel):
    """A picture to start from, as the farm keeps it."""

    id: str = Field(description="What `img2img.picture` and `img2img.mask.picture` take: its SHA-256.")
    width: int = Field(description="Pixels, upright.")
    height: int
    bytes: int = Field(description="Size of the PNG.")


class PapersBody(BaseModel):
    """What a picture's file says of how it was made."""

    text: str = Field(description="As it stands in the file; empty where there is none.")
    params: dict[str, Any] = Field(description="What of it can be submitted here, as a new job takes it.")
    left_out: list[str] = Field(description="What of it this farm cannot do, and why.")


class ImageLinks(BaseModel):
    """Where an image's bytes are; null while there are none."""

    picture: str | None
    thumbnail: str | None
    preview: str | None = Field(description="What it looks like so far, once `has_preview` is true.")
    film: str | None = Field(description="Its steps as an animation, where `film` was asked for.")
    strip: str | None = Field(description="Its steps side by side.")


class ImageBody(BaseModel):
    """One image of a job."""

    index: int
    state: ShownState
    seed: int
    attempt: int = Field(description="How often a worker has taken it.")
    step: int
    steps: int = Field(description="Those asked for; while it runs, the model calls that they take.")
    phase: str | None = Field(description="What its worker does with it now.")
    progress: float = Field(description="0 to 1.")
    reason: str | None = Field(description="Why it failed, is held, or was not started in time.")
    worker: str | None
    queued_at: datetime
    expires_at: datetime | None = Field(description="Cancelled if it has not started by then.")
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None = Field(description="From its start to its end.")
    bytes: int | None = Field(description="Size of the picture.")
    has_preview: bool = Field(default=False, description="It runs, and what it looks like so far can be seen.")
    links: ImageLinks

    @classmethod
    def of(cls, image: ImageView, live: Live, job: JobView) -> Self:
        """Return what `image` looks like; `live` counts only for the attempt that runs now."""
        running = image.state == ImageState.RUNNING
        told = live.progress.get(image.index)
        now = told if told is not None and running and told.attempt == image.attempt else None
        steps = now.steps if now else job.params.steps
        step = steps if image.state == ImageState.SUCCEEDED else now.step if now else 0
        return cls(
            index=image.index,
            state=image.state.value,
            seed=image.seed,
            attempt=image.attempt,
            step=step,
            steps=steps,
            phase=now.phase if now else None,
            progress=1.0 if image.state in FINAL else min(step / max(steps, 1), 1.0),
            reason=image.reason,
            worker=image.worker,
            queued_at=image.queued_at,
            expires_at=image.expires_at,
            started_at=image.started_at,
            ended_at=image.ended_at,
            seconds=_seconds(image.started_at, image.ended_at),
            bytes=image.bytes,
            has_preview=running and image.index in live.previews,
            links=_image_links(job, image),
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
    hold: str
    release: str
    zip: str
    source: str | None = Field(description="The picture that it starts from.")
    mask: str | None = Field(description="The mask of what is painted anew.")

    @classmethod
    def of(cls, job_id: int, params: RenderParams) -> JobLinks:
        """Return the links of a job."""
        here = f"{API}/jobs/{job_id}"
        source, mask = (*(upload_link(sha256) for sha256 in params.pictures), None, None)[:2]
        return cls(
            self=here,
            page=f"/jobs/{job_id}",
            events=f"{here}/events",
            cancel=f"{here}/cancel",
            retry=f"{here}/retry",
            hold=f"{here}/hold",
            release=f"{here}/release",
            zip=f"{here}/zip",
            source=source,
            mask=mask,
        )


class WaitingBody(BaseModel):
    """Why the first image of a job that waits does so."""

    index: int = Field(description="Of the image.")
    code: Cause
    text: str = Field(description="The same in words, with the estimate.")
    position: int | None = Field(description="Images of its owner that stand before it; null while it is held.")
    estimate_seconds: float | None = Field(description="Until it starts; null where that cannot be told.")
    estimate_error: float | None = Field(
        description="By which share such estimates were off lately, the median; null where too few were told."
    )

    @classmethod
    def of(cls, waiting: Waiting) -> Self:
        """Return what `waiting` looks like."""
        return cls(
            index=waiting.index,
            code=waiting.cause,
            text=waiting.text,
            position=waiting.position,
            estimate_seconds=waiting.estimate_seconds,
            estimate_error=waiting.estimate_error,
        )


class JobBody(BaseModel):
    """A job with its images."""

    id: int
    owner: str
    state: ShownState
    params: RenderParams
    not_understood: dict[str, Any] = Field(
        description="Parameters that a newer version of the farm wrote, by dotted name: `params` has defaults there."
    )
    created_at: datetime
    expires_at: datetime | None = Field(description="Its deadline: images that have not started by then are cancelled.")
    ended_at: datetime | None
    counts: dict[str, int] = Field(description="Images by state.")
    progress: float = Field(description="0 to 1.")
    pool: str = Field(description="Whose workers render it.")
    priority: int = Field(description="Higher goes first among its owner's images.")
    urgent: bool = Field(description="Goes before all that is not, whoever that belongs to.")
    position: int | None = Field(description="Queued images ahead of its first queued one.")
    waiting: WaitingBody | None = Field(
        description="Why its first image that waits does so: where one job is asked for, and something of it waits."
    )
    images: list[ImageBody] = Field(description="By index; in a list of jobs the first ones.")
    notes: list[str] = Field(
        default=[], description="What was chosen for it that may not be expected; in the answer to its submission."
    )
    timings: Timings
    links: JobLinks

    @property
    def is_final(self) -> bool:
        """True when every image has ended."""
        return self.state in FINAL

    @classmethod
    def of(
        cls, job: JobView, live: Live = NOTHING_LIVE, waiting: Waiting | None = None, notes: Iterable[str] = ()
    ) -> Self:
        """Return what `job` looks like with what happens to its images now, and why it waits."""
        images = [ImageBody.of(image, live, job) for image in job.images]
        return cls(
            id=job.id,
            owner=job.owner,
            state=job.state.value,
            params=job.params,
            not_understood=dict(job.unknown),
            created_at=job.created_at,
            expires_at=job.expires_at,
            ended_at=job.ended_at,
            counts={state.value: images for state, images in job.counts.items()},
            progress=_progress(job, images),
            pool=job.pool,
            priority=job.priority,
            urgent=job.urgent,
            position=job.position,
            waiting=WaitingBody.of(waiting) if waiting else None,
            images=images,
            notes=list(notes),
            timings=_timings(job),
            links=JobLinks.of(job.id, job.params),
        )


def _progress(job: JobView, images: list[ImageBody]) -> float:
    """Return how much of the job is done; of images that are not shown only those that have ended count."""
    ended = sum(job.counts[state] for state in FINAL)
    running = sum(image.progress for image in images if image.state == ImageState.RUNNING.value)
    return round((ended + running) / max(1, sum(job.counts.values())), 4)


def _timings(job: JobView) -> Timings:
    started = min((image.started_at for image in job.images if image.started_at), default=None)
    return Timings(waited_seconds=_seconds(job.created_at, started), render_seconds=_seconds(started, job.ended_at))


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 3) if start and end else None


def _image_links(job: JobView, image: ImageView) -> ImageLinks:
    here = f"{API}/jobs/{job.id}/images/{image.index}"
    state, done = image.state, image.state == ImageState.SUCCEEDED
    filmed = done and job.params.film
    return ImageLinks(
        picture=f"{here}/picture.{EXTENSIONS[job.params.format]}" if done and "format" not in job.unknown else None,
        thumbnail=f"{here}/thumbnail.webp" if done else None,
        preview=f"{here}/preview.webp" if state == ImageState.RUNNING else None,
        film=f"{here}/film.webp" if filmed else None,
        strip=f"{here}/strip.webp" if filmed else None,
    )


class JobPageBody(BaseModel):
    """A page of jobs, the latest first."""

    jobs: list[JobBody]
    next: int | None = Field(description="`cursor` of the next page; null on the last one.")

    @classmethod
    def of(cls, page: Page, live: Callable[[JobView], Live]) -> Self:
        """Return what `page` looks like; `live` is asked of those jobs alone that run."""
        running = ImageState.RUNNING
        return cls(
            jobs=[JobBody.of(job, live(job) if job.state == running else NOTHING_LIVE) for job in page.jobs],
            next=page.next,
        )


class ChangeBody(BaseModel):
    """What a cancel, a retry, a hold or a release changed."""

    images: int = Field(description="How many images it changed.")
    job: JobBody
