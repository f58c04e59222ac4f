"""Jobs: submitting, following, changing."""

from __future__ import annotations

import uuid
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from typing import Any, Final

from client.connection import PATIENCE_SECONDS
from client.declared import call, listing
from client.effects import API, Item, Items, Json, Listen, Pause, Steps, answered
from client.errors import FarmError
from client.shapes import Change, ImagePage, Job, JobPage, State

Progress = Callable[[Job], object]

FINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
POLL_SECONDS: Final = 0.5
MOST_IMAGES: Final = 1000  # on a page of a job's images
_SHOWN: Final = 8  # running images of a job that is watched
_INTERRUPTED: Final = (KeyboardInterrupt, SystemExit, CancelledError)
_LAST_WORD: Final[Json] = {"patience_seconds": 0.0, "timeout": 5.0}  # of who wants to end


class Jobs:
    """Calls about jobs."""

    @call
    def submit(self, params: Mapping[str, Any], idempotency_key: str = "") -> Steps[Job]:
        """Submit a job and return it. The same key again returns the same job; without one it gets its own.

        Ctrl-C, or the cancellation of the task, before the answer cancels the job, of which nobody knows then.
        """
        return _submitted(params, idempotency_key or str(uuid.uuid4()))

    @call
    def render(
        self, params: Mapping[str, Any], idempotency_key: str = "", *, progress: Progress | None = None
    ) -> Steps[Job]:
        """Submit a job, follow it until it has ended, and return it with all its images.

        `progress` gets the job now and after each change. Ctrl-C, or the cancellation of the task, cancels the job,
        also where the answer to its submission was still on the way.
        """
        job = yield from _submitted(params, idempotency_key or str(uuid.uuid4()))
        return (yield from _awaited(job["id"], progress))

    @call
    def wait(self, job_id: int, *, progress: Progress | None = None) -> Steps[Job]:
        """Follow a job until it has ended, as `render` does."""
        return _awaited(job_id, progress)

    @listing
    def watch(self, job_id: int) -> Items[Job]:
        """Yield the job now and after each change, with its running images alone, until it has ended.

        The event stream says when to look; without one (too many listeners, Redis away) the clock does. An API that
        dies meanwhile is waited for. Nothing is cancelled.
        """
        yield Item(job := (yield from _glance(job_id)))
        while job["state"] not in FINAL:
            yield Item(job := (yield from _after_a_change(job)))

    @call
    def preview_sweep(self, params: Mapping[str, Any]) -> Steps[Json]:
        """Return what a sweep would be, and what it would be refused for; nothing is recorded."""
        return answered("POST", f"{API}/sweeps/preview", repeats=True, json=params)

    @call
    def jobs(self, states: tuple[str, ...] = (), limit: int = 20) -> Steps[JobPage]:
        """Return the page of the latest jobs."""
        which = {"state": states, "limit": limit}
        return answered("GET", f"{API}/jobs", params=which)

    @call
    def job(self, /, job_id: int) -> Steps[Job]:
        """Return a job with all its images and how far they are."""
        return _whole(job_id)

    @call
    def images(
        self, job_id: int, cursor: int | None = None, limit: int = MOST_IMAGES, state: State | None = None
    ) -> Steps[ImagePage]:
        """Return a page of a job's images, of those in a state, after `cursor`, and the cursor of the next page."""
        return _images(job_id, cursor, limit, state)

    @call
    def change(self, /, job_id: int, **scheduling: Any) -> Steps[Change]:  # noqa: ANN401 - JSON
        """Change pool, priority, urgent, expires_at, hold, after or on of a job of which images wait."""
        return _changed("PATCH", f"{API}/jobs/{job_id}", json=scheduling)

    @call
    def cancel(self, job_id: int, index: int | None = None, *, only_waiting: bool = False) -> Steps[Change]:
        """Cancel a job, one image of it, or its images that have not started."""
        which = {"params": {"waiting": "true"}} if only_waiting else {}
        return _changed("POST", f"{_place(job_id, index)}/cancel", **which)

    @call
    def retry(self, job_id: int, index: int | None = None) -> Steps[Change]:
        """Put a job's failed and cancelled images, or one of them, back into the queue."""
        return _changed("POST", f"{_place(job_id, index)}/retry")

    @call
    def hold(self, job_id: int) -> Steps[Change]:
        """Keep a job's queued images from starting."""
        return _changed("POST", f"{API}/jobs/{job_id}/hold")

    @call
    def release(self, job_id: int) -> Steps[Change]:
        """Queue a job's held images."""
        return _changed("POST", f"{API}/jobs/{job_id}/release")

    @call
    def approve(self, job_id: int) -> Steps[Job]:
        """Submit the sweep of a draft with fewer steps, with all of them, and return its job."""
        return answered("POST", f"{API}/jobs/{job_id}/approve", repeats=True)


def _submitted(params: Mapping[str, Any], key: str) -> Steps[Job]:
    try:
        return (yield from _posted(params, key))
    except _INTERRUPTED as end:
        yield from _taken_back(params, key, end)
        raise


def _posted(params: Mapping[str, Any], key: str, **given: Any) -> Steps[Job]:  # noqa: ANN401 - httpx's own arguments
    headers = {"Idempotency-Key": key}
    return answered("POST", f"{API}/jobs", repeats=True, json=params, headers=headers, **given)


def _taken_back(params: Mapping[str, Any], key: str, end: BaseException) -> Steps[None]:
    """Cancel the job of a submission without an answer: the same key says which it is, whether it arrived or not."""
    try:
        job = yield from _posted(params, key, **_LAST_WORD)
    except FarmError as error:
        end.add_note(f"The job may have been submitted, and was not cancelled: {error}")
        return
    yield from _cancelled(job["id"], end)


def _cancelled(job_id: int, end: BaseException) -> Steps[None]:
    """Cancel a job because its client ends, and note on the exception what came of it."""
    try:
        yield from answered("POST", f"{API}/jobs/{job_id}/cancel", **_LAST_WORD)
    except FarmError as error:
        end.add_note(f"Job {job_id} was not cancelled: {error}")
    else:
        end.add_note(f"Cancelled job {job_id}.")


def _awaited(job_id: int, progress: Progress | None) -> Steps[Job]:
    tell = progress or _nothing
    try:
        tell(job := (yield from _glance(job_id)))
        while job["state"] not in FINAL:
            tell(job := (yield from _after_a_change(job)))
    except _INTERRUPTED as end:
        yield from _cancelled(job_id, end)
        raise
    return (yield from _whole(job_id))


def _nothing(_: Job) -> None:
    """Nobody wants to know how far the job is."""


def _after_a_change(job: Job) -> Steps[Job]:
    """Return a job when it may have changed, or after a pause where no stream tells; an API that dies is waited for."""
    is_change: bool = yield Listen(job["links"]["events"])
    if not is_change:
        yield Pause(POLL_SECONDS)
    return (yield from _glance(job["id"], patience_seconds=PATIENCE_SECONDS))


def _glance(job_id: int, **given: Any) -> Steps[Job]:  # noqa: ANN401 - JSON
    """Return a job with a few of its running images: what is asked for again and again."""
    which = {"state": "running", "limit": _SHOWN}
    return answered("GET", f"{API}/jobs/{job_id}", params=which, **given)


def _whole(job_id: int) -> Steps[Job]:
    first = yield from answered("GET", f"{API}/jobs/{job_id}", params={"limit": MOST_IMAGES})
    while first.get("next") is not None:  # an API of an older version has no pages
        page = yield from _images(job_id, first["next"], MOST_IMAGES)
        first["images"] += page["images"]
        first["next"] = page["next"]
    whole: Job = first
    return whole


def _images(job_id: int, cursor: int | None, limit: int, state: State | None = None) -> Steps[ImagePage]:
    wanted = {"limit": limit, "cursor": cursor, "state": state}
    which = {name: value for name, value in wanted.items() if value is not None}
    return answered("GET", f"{API}/jobs/{job_id}/images", params=which)


def _changed(method: str, path: str, **given: Any) -> Steps[Change]:  # noqa: ANN401 - httpx's own arguments
    return answered(method, path, **given)


def _place(job_id: int, index: int | None) -> str:
    return f"{API}/jobs/{job_id}" if index is None else f"{API}/jobs/{job_id}/images/{index}"
