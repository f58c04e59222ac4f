"""The API's JSON of jobs, images and uploads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr

from shared.db.states import FINAL, ImageState
from shared.messaging.events import Progress
from shared.params.fields import MASK, SOURCE, FileFormat
from shared.params.job_spec import Axis, JobSpec
from shared.params.render import RenderParams
from shared.pictures.queries import is_restorable
from shared.queue.explain import Cause, Waiting
from shared.queue.missing_files import MissingFile
from shared.queue.queries import ImageView, JobView, Page

API = "/api/v1"
EXTENSIONS: Final[dict[FileFormat, str]] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
"""How the names of picture files end, by their format."""
DisplayState = Literal["held", "queued", "running", "succeeded", "failed", "cancelled"]
ShownState = DisplayState | Literal["unknown"]  # where a newer version wrote another one


@dataclass(frozen=True)
class Live:
    """The state of a job's images in Redis, by index: the latest progress, and which of them have a preview."""

    progress: Mapping[int, Progress] = field(default_factory=dict)
    previews: Collection[int] = ()


NOTHING_LIVE: Final = Live()


def upload_link(sha256: str) -> str:
    """Return the address of an upload's bytes."""
    return f"{API}/uploads/{sha256}"


def image_page(job_id: int, index: int) -> str:
    """Return the address of an image on the page of its job, also on a later one or in a cell of a sweep."""
    return f"/jobs/{job_id}?image={index}#image-{index}"


class UploadBody(BaseModel):
    """A source picture as the farm stores it."""

    id: str = Field(
        description="SHA-256 of the stored picture: the value of `img2img.picture` and `img2img.mask.picture`."
    )
    width: int = Field(description="Pixels, after the picture was turned upright.")
    height: int
    bytes: int = Field(description="Size of the PNG.")


class PngInfoBody(BaseModel):
    """The parameters in a picture's file."""

    text: str = Field(description="The text in the file; empty if there is none.")
    params: dict[str, Any] = Field(description="The parameters that this farm can use, ready to be submitted.")
    left_out: list[str] = Field(description="The parts that this farm cannot use, and why.")


class ImageLinks(BaseModel):
    """Links to an image's files; null while there are none."""

    picture: str | None
    thumbnail: str | None
    preview: str | None = Field(description="Its latest preview, once `has_preview` is true.")
    film: str | None = Field(description="Its steps as an animation, if the job has `film`.")
    strip: str | None = Field(description="Its steps side by side, if the job has `film`.")
    intermediates: str | None = Field(description="How it was made, if the job has `intermediates`.")


class ImageBody(BaseModel):
    """One image of a job."""

    index: int
    state: ShownState
    seed: int = Field(description="-1 of a picture that is only enlarged.")
    attempt: int = Field(description="How many times a worker has claimed it.")
    step: int
    steps: int = Field(
        description="The steps of the job, 0 if it enlarges pictures; while the image runs, its model calls."
    )
    phase: str | None = Field(description="What its worker is doing with it.")
    progress: float = Field(description="0 to 1.")
    reason: str | None = Field(description="Why it failed, is held, or was cancelled.")
    worker: str | None
    queued_at: datetime
    expires_at: datetime | None = Field(description="Deadline: cancelled if it has not started by then.")
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None = Field(description="Seconds from its start to its end.")
    bytes: int | None = Field(description="Size of the picture's file.")
    deleted_at: datetime | None = Field(default=None, description="When its picture was deleted; null: it was not.")
    has_preview: bool = Field(default=False, description="Whether it runs and has a preview.")
    cell: list[int] = Field(default=[], description="Of a sweep: its place on each axis, from 0.")
    titles: list[str] = Field(default=[], description="Of a sweep: the titles of its values, an axis each.")
    changes: dict[str, Any] | None = Field(
        default=None, description="Of a sweep: what it changes of the job's parameters, by dotted name."
    )
    hashes: dict[str, str] = Field(default={}, exclude=True)  # as JobBody.hashes, of its own files
    links: ImageLinks

    @property
    def is_restorable(self) -> bool:
        """Whether its picture was deleted so lately that it can be restored."""
        return is_restorable(self.deleted_at)

    @classmethod
    def from_view(cls, image: ImageView, live: Live, job: JobView) -> Self:
        """Return the body of `image`; `live` counts only for the attempt that runs now."""
        running = image.state == ImageState.RUNNING
        latest = live.progress.get(image.index)
        now = latest if latest is not None and running and latest.attempt == image.attempt else None
        params = job.params if image.changes is None else job.spec.image(image.index)
        steps = now.steps if now else 0 if params.upscale else params.steps
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
            deleted_at=image.deleted_at,
            has_preview=running and image.index in live.previews,
            cell=list(job.spec.cell(image.index)),
            titles=list(job.spec.titles(image.index)),
            changes=None if image.changes is None else dict(image.changes),
            hashes=dict(image.hashes),
            links=_image_links(job, image, params),
        )


class Timings(BaseModel):
    """Seconds that a job waited and rendered; null until that has ended."""

    waited_seconds: float | None
    render_seconds: float | None


class JobLinks(BaseModel):
    """Links to a job, to its files and to its actions."""

    self: str
    page: str
    events: str
    cancel: str
    retry: str
    hold: str
    release: str
    zip: str
    source: str | None = Field(description="The source picture.")
    mask: str | None = Field(description="The mask of the part to repaint.")

    @classmethod
    def from_job(cls, job_id: int, params: RenderParams) -> JobLinks:
        """Return the links of a job."""
        here = f"{API}/jobs/{job_id}"
        uploads = {name: upload_link(sha256) for name, sha256 in params.pictures.items()}
        return cls(
            self=here,
            page=f"/jobs/{job_id}",
            events=f"{here}/events",
            cancel=f"{here}/cancel",
            retry=f"{here}/retry",
            hold=f"{here}/hold",
            release=f"{here}/release",
            zip=f"{here}/zip",
            source=uploads.get(SOURCE),
            mask=uploads.get(MASK),
        )


class MissingFileBody(BaseModel):
    """A model file of a job that no worker can load."""

    kind: str = Field(description="checkpoint, lora, controlnet and so on, as in the list of models.")
    name: str = Field(description="As the catalogue knows it, else as the job names it.")
    folder: str = Field(description="Folder in the models folder to put it into; empty: the models folder itself.")
    sha256: str = Field(description="Hash of the file that the job was submitted with.")
    text: str = Field(description="In words: what is wrong with it, and what to do.")

    @classmethod
    def from_missing(cls, file: MissingFile) -> Self:
        """Return the body of `file`."""
        return cls(kind=file.kind, name=file.name, folder=file.folder, sha256=file.sha256, text=file.words)


class WaitingBody(BaseModel):
    """Why the first waiting image of a job waits."""

    index: int = Field(description="Of the image.")
    code: Cause
    text: str = Field(description="The reason in words, with the estimate.")
    position: int | None = Field(description="Images of its owner that start before it; null while it is held.")
    estimate_seconds: float | None = Field(description="Seconds until it starts; null if that is not known.")
    estimate_error: float | None = Field(
        description="Median share by which such estimates were off lately; null if there were too few."
    )
    missing: list[MissingFileBody] = Field(default=[], description="Model files of the job that no worker can load.")

    @classmethod
    def from_waiting(cls, waiting: Waiting) -> Self:
        """Return the body of `waiting`."""
        return cls(
            index=waiting.index,
            code=waiting.cause,
            text=waiting.text,
            position=waiting.position,
            estimate_seconds=waiting.estimate_seconds,
            estimate_error=waiting.estimate_error,
            missing=[MissingFileBody.from_missing(file) for file in waiting.missing],
        )


class AxisBody(BaseModel):
    """One way in which the images of a sweep differ."""

    field: str = Field(description="The dotted name of a parameter, or of an axis that varies several.")
    label: str = Field(description="What people call it.")
    of: str = Field(description="What of it varies, where its field does not say: a LoRA, the words that are replaced.")
    values: list[str] = Field(description="The titles of its values, in the order of the images' places.")

    @classmethod
    def from_axis(cls, axis: Axis) -> Self:
        """Return the body of `axis`."""
        return cls(field=axis.field, label=axis.label, of=axis.of, values=[value.title for value in axis.values])


class JobBody(BaseModel):
    """A job with its images."""

    _spec: JobSpec = PrivateAttr()

    id: int
    owner: str
    state: ShownState
    params: RenderParams
    not_understood: dict[str, Any] = Field(
        description="Parameters that only a newer version of the farm knows, by dotted name; `params` has the default."
    )
    axes: list[AxisBody] = Field(
        default=[], description="Of a sweep: how its images differ; the last axis varies fastest."
    )
    full_steps: int | None = Field(
        default=None, description="Of a sweep's draft with fewer steps: how many the approved sweep has."
    )
    hashes: dict[str, str] = Field(
        default={}, description="Of the files that tags of its prompts name, such as `lora:ink`, as pictures hold them."
    )
    created_at: datetime
    expires_at: datetime | None = Field(description="Its deadline: images that have not started by then are cancelled.")
    ended_at: datetime | None
    counts: dict[str, int] = Field(description="Images by state.")
    progress: float = Field(description="0 to 1.")
    pool: str = Field(description="Only workers of this pool render it.")
    priority: int = Field(description="Higher starts first among its owner's images.")
    urgent: bool = Field(description="Starts before everything that is not urgent, whoever owns it.")
    after: list[int] = Field(default=[], description="Jobs that it waits for, or has waited for.")
    on: str = Field(default="success", description="What each of those must do before it starts: success or end.")
    webhook: str | None = Field(default=None, description="Address that gets a message when it has ended.")
    position: int | None = Field(description="Queued images that start before its first queued one.")
    waiting: WaitingBody | None = Field(description="Why its first waiting image waits; only in answers about one job.")
    images: list[ImageBody] = Field(
        description="By index: the first 100, or those that were asked for; in a list of jobs the first 8."
    )
    next: int | None = Field(description="Value of `cursor` for the images after these; null if there are none.")
    notes: list[str] = Field(
        default=[], description="Choices that the farm made; only in the answer to its submission."
    )
    timings: Timings
    links: JobLinks

    @property
    def is_final(self) -> bool:
        """True when every image has ended."""
        return self.state in FINAL

    @property
    def count(self) -> int:
        """The number of all its images."""
        return sum(self.counts.values())

    @property
    def spec(self) -> JobSpec:
        """The parameters of each of its `images`."""
        return self._spec

    @classmethod
    def from_view(
        cls, job: JobView, live: Live = NOTHING_LIVE, waiting: Waiting | None = None, notes: Iterable[str] = ()
    ) -> Self:
        """Return the body of `job`, with the progress of its images and why it waits."""
        images = [ImageBody.from_view(image, live, job) for image in job.images]
        body = cls(
            id=job.id,
            owner=job.owner,
            state=job.state.value,
            params=job.params,
            not_understood=dict(job.unknown),
            axes=[AxisBody.from_axis(axis) for axis in job.axes],
            full_steps=job.spec.sweep.full_steps if job.spec.sweep else None,
            hashes=dict(job.hashes),
            created_at=job.created_at,
            expires_at=job.expires_at,
            ended_at=job.ended_at,
            counts={state.value: images for state, images in job.counts.items()},
            progress=_progress(job, images),
            pool=job.pool,
            priority=job.priority,
            urgent=job.urgent,
            after=list(job.after),
            on=job.on,
            webhook=job.webhook,
            position=job.position,
            waiting=WaitingBody.from_waiting(waiting) if waiting else None,
            images=images,
            next=job.next,
            notes=list(notes),
            timings=_timings(job),
            links=JobLinks.from_job(job.id, job.params),
        )
        body._spec = job.spec
        return body


def _progress(job: JobView, images: list[ImageBody]) -> float:
    """Return the share of the job that is done; of images that are not shown only ended ones count."""
    ended = sum(job.counts[state] for state in FINAL)
    running = sum(image.progress for image in images if image.state == ImageState.RUNNING.value)
    return round((ended + running) / max(1, job.count), 4)


def _timings(job: JobView) -> Timings:
    return Timings(
        waited_seconds=_seconds(job.created_at, job.started_at), render_seconds=_seconds(job.started_at, job.ended_at)
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 3) if start and end else None


def _image_links(job: JobView, image: ImageView, params: RenderParams) -> ImageLinks:
    here = f"{API}/jobs/{job.id}/images/{image.index}"
    state, done = image.state, image.state == ImageState.SUCCEEDED and not image.deleted_at
    filmed = done and params.film
    return ImageLinks(
        picture=f"{here}/picture.{EXTENSIONS[params.format]}" if done and "format" not in job.unknown else None,
        thumbnail=f"{here}/thumbnail.webp" if done else None,
        preview=f"{here}/preview.webp" if state == ImageState.RUNNING else None,
        film=f"{here}/film.webp" if filmed else None,
        strip=f"{here}/strip.webp" if filmed else None,
        intermediates=f"{here}/intermediates.json" if done and params.intermediates else None,
    )


class ImagePageBody(BaseModel):
    """A page of a job's images, by index."""

    images: list[ImageBody]
    next: int | None = Field(description="Value of `cursor` for the next page; null on the last one.")


class JobPageBody(BaseModel):
    """A page of jobs, the latest first."""

    jobs: list[JobBody]
    next: int | None = Field(description="Value of `cursor` for the next page; null on the last one.")

    @classmethod
    def from_page(cls, page: Page, live: Callable[[JobView], Live]) -> Self:
        """Return the body of `page`; `live` is called only for running jobs."""
        running = ImageState.RUNNING
        return cls(
            jobs=[JobBody.from_view(job, live(job) if job.state == running else NOTHING_LIVE) for job in page.jobs],
            next=page.next,
        )


class ChangeBody(BaseModel):
    """The result of a cancel, retry, hold or release."""

    images: int = Field(description="Number of images that it changed.")
    job: JobBody
