"""The JSON that most programs read of the farm's answers. Its document, `/openapi.json`, has all of it."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

State = Literal["held", "queued", "running", "succeeded", "failed", "cancelled", "unknown"]


class ImageLinks(TypedDict):
    """Where the files of an image are; null: there is none."""

    picture: str | None
    thumbnail: str | None
    preview: str | None
    film: str | None
    strip: str | None
    intermediates: str | None


class Image(TypedDict):
    """One image of a job."""

    index: int
    state: State
    seed: int
    attempt: int
    step: int
    steps: int
    phase: str | None
    progress: float
    reason: str | None
    worker: str | None
    queued_at: str
    expires_at: str | None
    started_at: str | None
    ended_at: str | None
    seconds: float | None
    bytes: int | None
    deleted_at: str | None
    has_preview: bool
    cell: list[int]
    titles: list[str]
    changes: dict[str, Any] | None
    links: ImageLinks


class Waiting(TypedDict):
    """Why an image waits."""

    index: int
    code: str
    text: str
    position: int | None
    estimate_seconds: float | None
    estimate_error: float | None
    missing: list[dict[str, Any]]


class Timings(TypedDict):
    """Seconds of a job that has ended."""

    waited_seconds: float | None
    render_seconds: float | None


class JobLinks(TypedDict):
    """Where a job, its files and its actions are."""

    self: str
    page: str
    events: str
    cancel: str
    retry: str
    hold: str
    release: str
    zip: str
    source: str | None
    mask: str | None


class Job(TypedDict):
    """A job with its images, or with some of them."""

    id: int
    owner: str
    state: State
    params: dict[str, Any]
    not_understood: dict[str, Any]
    axes: list[dict[str, Any]]
    full_steps: int | None
    hashes: dict[str, str]
    created_at: str
    expires_at: str | None
    ended_at: str | None
    counts: dict[str, int]
    progress: float
    pool: str
    priority: int
    urgent: bool
    after: list[int]
    on: str
    webhook: str | None
    position: int | None
    waiting: Waiting | None
    images: list[Image]
    next: int | None
    notes: list[str]
    timings: Timings
    links: JobLinks


class JobPage(TypedDict):
    """Jobs, the latest first."""

    jobs: list[Job]
    next: int | None


class ImagePage(TypedDict):
    """Images of a job."""

    images: list[Image]
    next: int | None


class Change(TypedDict):
    """What a change did to a job."""

    images: int
    job: Job


class Upload(TypedDict):
    """A source picture as the farm keeps it; jobs name it by its id."""

    id: str
    width: int
    height: int
    bytes: int


class FileParameters(TypedDict):
    """How a picture was made, by its file; `params` can be submitted."""

    text: str
    params: dict[str, Any]
    left_out: list[str]
