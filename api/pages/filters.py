"""Jinja filters: the words for numbers, times, states and errors."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from markupsafe import Markup, escape

from api.pages.fields import printed
from api.pages.parameter_table import sides
from api.schemas.jobs import ImageBody, JobBody
from api.schemas.workers import WorkerBody
from shared.models.architectures import label
from shared.quantities import counted, data_size, duration
from shared.queue.explain import Cause

_CODE: Final = re.compile(r"`([^`]+)`")
_LOADING: Final = re.compile(r"(?P<what>loading .+?)(?:, about (?P<usual>.+))?")
PHASES: Final = {
    "embed": "reading the prompt",
    "decode": "decoding",
    "idle": "waiting for the card",
    "saving": "saving the picture",
}
"""The phases of a running image outside its steps; any other phase is in words already."""

WORKER_PHASES: Final = {
    "embed": "reading prompts",
    "steps": "rendering",
    "decode": "decoding pictures",
    "warm-up": "preparing the card",
    "idle": "waiting for work",
}
"""The phases of a worker; any other phase is in words already."""

_NEXT: Final = frozenset({Cause.NEXT, Cause.SLOT})
"""The reasons of a job that is next."""
_FOR_NOBODY: Final = frozenset({Cause.MEMORY, Cause.NEWER_VERSION, Cause.NO_CHECKPOINT, Cause.NO_MODEL})
"""The reasons of a job that none of the living workers can take, wherever it stands."""

_ERROR_TEXTS: Final = {
    400: ("The request cannot be read", "Go back, check it, and try again."),
    403: ("Not allowed from here", "Open the form on this farm’s own pages and send it from there."),
    404: ("There is nothing here", "It may have been deleted, or it belongs to another owner."),
    405: ("That cannot be done this way", "Use the buttons of the farm’s pages."),
    409: ("Not possible in this state", "Go back to the job’s page: it shows what can be done now."),
    413: ("Too large", "Go back and send less; the form still has your settings."),
    422: ("Some settings cannot be accepted", "Go back and change them; the form still has your settings."),
    500: ("Internal error", "Try once more. If it fails again, give the id above to the person who runs this farm."),
    503: ("The farm is not ready", "Nothing is lost. Try again in a few seconds."),
}


def moment(at: datetime) -> str:
    """A time in UTC; scripts replace it by the reader's own time."""
    return at.strftime("%d %b %Y, %H:%M UTC")


def image_origin(image: ImageBody) -> str:
    """The worker of an image, and its attempt if it is not the first: `attempt 2 · host/cpu:0`."""
    attempt = f"attempt {image.attempt}" if image.attempt > 1 else ""
    return " · ".join(part for part in (attempt, image.worker) if part)


def image_words(image: ImageBody) -> str:
    """The state of one image: `step 8 of 20`; markup if scripts go on counting."""
    match image.state:
        case "running":
            return _running(image)
        case "succeeded":
            return ", ".join([duration(image.seconds or 0), data_size(image.bytes or 0)])
        case "held":
            return image.reason or "held"
        case "queued":
            return "waiting for a worker"
        case "unknown":
            return "in a state that only a newer version knows"
    return ""


def _running(image: ImageBody) -> str:
    """The phase of a running image; after its last step it waits for the decoder."""
    if image.phase == "steps":
        return f"step {image.step} of {image.steps}" if image.step < image.steps else PHASES["decode"]
    if image.phase and (loading := _LOADING.fullmatch(image.phase)):
        return _so_far(loading["what"], loading["usual"], image.started_at)
    return PHASES.get(image.phase, image.phase) if image.phase else "starting"


def _so_far(what: str, usual: str | None, since: datetime | None) -> Markup:
    """The file that is being loaded, how long that usually takes and has taken; scripts go on counting."""
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds()) if since else 0.0
    usually = f"usually {usual}, " if usual else ""
    counted = Markup('<span data-so-far="{:.0f}">{}</span>').format(seconds, duration(round(seconds)))
    return Markup("{} ({}{} so far)").format(what, usually, counted)


def worker_words(worker: WorkerBody) -> str:
    """The activity of one worker."""
    if worker.is_late:
        return "silent for too long: its images go to others"
    if worker.drained is not None:
        return f"paused {worker.drained}" if worker.drained.startswith("by ") else f"paused: {worker.drained}"
    return WORKER_PHASES.get(worker.phase, worker.phase) or (
        "waiting for work" if worker.state == "ready" else worker.state
    )


def job_title(job: JobBody) -> str:
    """The prompt of a job, or what it does to the pictures that it enlarges."""
    return job.params.prompt or (job.params.upscale.words if job.params.upscale else "No prompt")


def job_words(job: JobBody) -> str:
    """The state of one job: `3 of 8 done, 2 running, 12 images ahead`."""
    total = sum(job.counts.values())
    if total == 1:
        return _single(job)
    parts = [f"{job.counts['succeeded']:,} of {total:,} done"]
    others = ("running", "failed", "cancelled", "held", "unknown")
    parts += [f"{job.counts[state]:,} {state}" for state in others if job.counts.get(state)]
    return ", ".join([*parts, *_place(job)])


def _single(job: JobBody) -> str:
    if job.state == "queued":
        return ", ".join(_place(job)) or (
            "" if job.waiting else "waiting for a worker"
        )  # otherwise the reason why it waits is shown
    if job.state == "running" and job.images:
        return image_words(job.images[0])
    seconds = job.timings.render_seconds
    return f"1 image in {duration(seconds)}" if job.state == "succeeded" and seconds is not None else "1 image"


def _place(job: JobBody) -> list[str]:
    """Return how many images start before it, unless the reason why it waits says that, or that none can start."""
    if job.position is None or not job.counts["queued"] or (job.waiting and job.waiting.code in _NEXT | _FOR_NOBODY):
        return []
    return [f"{counted(job.position, 'image')} ahead" if job.position else "next in line"]


def marked(text: str | None) -> Markup:
    """Text with `code` in it, as markup."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text or ""))))  # noqa: S704 - escaped first


def error_title(status: int) -> str:
    """Return the title of an error page."""
    return _ERROR_TEXTS[status][0] if status in _ERROR_TEXTS else HTTPStatus(status).phrase


def error_advice(status: int) -> str:
    """The advice on an error page."""
    return _ERROR_TEXTS[status][1] if status in _ERROR_TEXTS else ""


FILTERS: Final = {"architecture": label} | {
    word.__name__: word
    for word in (
        *(counted, data_size, duration, moment, image_origin, image_words, job_title, job_words, marked, sides),
        *(error_title, error_advice, printed),
    )
}
