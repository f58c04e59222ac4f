"""Jinja filters: the words for numbers, times, states and errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from markupsafe import Markup, escape

from api import languages
from api.languages import _, lazy, ngettext, number
from api.pages.fields import printed
from api.pages.parameter_table import sides
from api.schemas.jobs import ImageBody, JobBody
from api.schemas.workers import WorkerBody
from api.sentences import said
from shared.accounts.principal import Role
from shared.models.architectures import label
from shared.quantities import data_size, duration
from shared.queue.explain import Cause

_CODE: Final = re.compile(r"`([^`]+)`")
_LOADING: Final = re.compile(r"(?P<what>loading .+?)(?:, about (?P<usual>.+))?")
PHASES: Final = {
    "embed": lazy("reading the prompt"),
    "decode": lazy("decoding"),
    "idle": lazy("waiting for the card"),
    "saving": lazy("saving the picture"),
    "intermediates": lazy("keeping how it was made"),
}
"""The phases of a running image outside its steps; any other phase is in words already."""

WORKER_PHASES: Final = {
    "embed": lazy("reading prompts"),
    "steps": lazy("rendering"),
    "decode": lazy("decoding pictures"),
    "warm-up": lazy("preparing the card"),
    "idle": lazy("waiting for work"),
}
"""The phases of a worker; any other phase is in words already."""

STATES: Final = {
    "queued": lazy("queued"),
    "running": lazy("running"),
    "succeeded": lazy("succeeded"),
    "failed": lazy("failed"),
    "cancelled": lazy("cancelled"),
    "held": lazy("held"),
    "unknown": lazy("unknown"),
    "starting": lazy("starting"),
    "ready": lazy("ready"),
    "draining": lazy("draining"),
    "drained": lazy("drained"),
    "dead": lazy("dead"),
    "stopped": lazy("stopped"),
    "silent": lazy("silent"),
    "unusable": lazy("unusable"),
    "paused": lazy("paused"),
}
"""The words for states; a state that is not here is its own."""

_NEXT: Final = frozenset({Cause.NEXT, Cause.SLOT})
"""The reasons of a job that is next."""
_FOR_NOBODY: Final = frozenset({Cause.MEMORY, Cause.NEWER_VERSION, Cause.NO_CHECKPOINT, Cause.NO_MODEL})
"""The reasons of a job that none of the living workers can take, wherever it stands."""

_ERROR_TEXTS: Final = {
    400: (lazy("The request cannot be read"), lazy("Go back, check it, and try again.")),
    403: (
        lazy("Not allowed from here"),
        lazy("Open the form on this farm’s own pages and send it from there, with a key that may do it."),
    ),
    404: (lazy("There is nothing here"), lazy("It may have been deleted, or it belongs to another owner.")),
    405: (lazy("That cannot be done this way"), lazy("Use the buttons of the farm’s pages.")),
    409: (lazy("Not possible in this state"), lazy("Go back to the job’s page: it shows what can be done now.")),
    413: (lazy("Too large"), lazy("Go back and send less; the form still has your settings.")),
    422: (lazy("Some settings cannot be accepted"), lazy("Go back and change them; the form still has your settings.")),
    500: (
        lazy("Internal error"),
        lazy("Try once more. If it fails again, give the id above to the person who runs this farm."),
    ),
    503: (lazy("The farm is not ready"), lazy("Nothing is lost. Try again in a few seconds.")),
}


def moment(at: datetime) -> str:
    """A time in UTC; scripts replace it by the reader's own time."""
    return languages.moment(at)


def image_origin(image: ImageBody) -> str:
    """The worker of an image, and its attempt if it is not the first: `attempt 2 · host/cpu:0`."""
    attempt = _("attempt %(n)s", n=image.attempt) if image.attempt > 1 else ""
    return " · ".join(part for part in (attempt, image.worker) if part)


def image_words(image: ImageBody) -> str:
    """The state of one image: `step 8 of 20`; markup if scripts go on counting."""
    match image.state:
        case "running":
            return _running(image)
        case "succeeded":
            return ", ".join([time_words(image.seconds or 0), size_words(image.bytes or 0)])
        case "held":
            return said(image.reason or "held")
        case "queued":
            return _("waiting for a worker")
        case "unknown":
            return _("in a state that only a newer version knows")
    return ""


def _running(image: ImageBody) -> str:
    """The phase of a running image; after its last step it waits for the decoder."""
    if image.phase == "steps":
        return (
            _("step %(step)s of %(steps)s", step=image.step, steps=image.steps)
            if image.step < image.steps
            else str(PHASES["decode"])
        )
    if image.phase and (loading := _LOADING.fullmatch(image.phase)):
        return _so_far(loading["what"], loading["usual"], image.started_at)
    return str(PHASES.get(image.phase) or said(image.phase)) if image.phase else _("starting")


def _so_far(what: str, usual: str | None, since: datetime | None) -> Markup:
    """The file that is being loaded, how long that usually takes and has taken; scripts go on counting."""
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds()) if since else 0.0
    counted = Markup('<span data-so-far="{:.0f}">{}</span>').format(seconds, time_words(round(seconds)))
    places = {"what": escape(said(what)), "usual": escape(said(usual or "")), "time": counted}
    words = (
        _("%(what)s (usually %(usual)s, %(time)s so far)", **places)
        if usual
        else _("%(what)s (%(time)s so far)", **places)
    )
    return Markup(words)  # noqa: S704 - what fills it is escaped


def worker_words(worker: WorkerBody) -> str:
    """The activity of one worker."""
    if worker.is_late:
        return _("silent for too long: its images go to others")
    if worker.drained is not None:
        why = said(worker.drained)
        is_by = worker.drained.startswith("by ")
        return _("paused %(by)s", by=why) if is_by else _("paused: %(why)s", why=why)
    if worker.phase:
        return str(WORKER_PHASES.get(worker.phase) or said(worker.phase))
    return _("waiting for work") if worker.state == "ready" else state(worker.state)


def job_title(job: JobBody) -> str:
    """The prompt of a job, or what it does to the pictures that it enlarges."""
    return job.params.prompt or (said(job.params.upscale.words) if job.params.upscale else _("No prompt"))


def job_words(job: JobBody) -> str:
    """The state of one job: `3 of 8 done, 2 running, 12 images ahead`."""
    total = sum(job.counts.values())
    if total == 1:
        return _single(job)
    done, of_all = number(job.counts["succeeded"]), number(total)
    parts = [_("%(done)s of %(total)s done", done=done, total=of_all)]
    others = ("running", "failed", "cancelled", "held", "unknown")
    parts += [f"{number(job.counts[one])} {state(one)}" for one in others if job.counts.get(one)]
    return ", ".join([*parts, *_place(job)])


def _single(job: JobBody) -> str:
    if job.state == "queued":
        return ", ".join(_place(job)) or (
            "" if job.waiting else _("waiting for a worker")
        )  # otherwise the reason why it waits is shown
    if job.state == "running" and job.images:
        return image_words(job.images[0])
    seconds = job.timings.render_seconds
    is_timed = job.state == "succeeded" and seconds is not None
    return (
        _("1 image in %(time)s", time=time_words(seconds or 0))
        if is_timed
        else ngettext("%(num)s image", "%(num)s images", 1)
    )


def _place(job: JobBody) -> list[str]:
    """Return how many images start before it, unless the reason why it waits says that, or that none can start."""
    if job.position is None or not job.counts["queued"] or (job.waiting and job.waiting.code in _NEXT | _FOR_NOBODY):
        return []
    ahead = ngettext("%(num)s image ahead", "%(num)s images ahead", job.position)
    return [ahead if job.position else _("next in line")]


def marked(text: str | None) -> Markup:
    """Text with `code` in it, as markup."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text or ""))))  # noqa: S704 - escaped first


def error_title(status: int) -> str:
    """Return the title of an error page."""
    return str(_ERROR_TEXTS[status][0]) if status in _ERROR_TEXTS else HTTPStatus(status).phrase


def error_advice(status: int) -> str:
    """The advice on an error page."""
    return str(_ERROR_TEXTS[status][1]) if status in _ERROR_TEXTS else ""


def state(name: str) -> str:
    """The word for a state of a job, an image or a worker."""
    return str(STATES.get(name, name))


def time_words(seconds: float) -> str:
    """How long something took: `1 min 20 s`."""
    return said(duration(seconds))


def size_words(size: float) -> str:
    """How much room something takes: `1.5 KB`."""
    figure, _space, unit = data_size(size).rpartition(" ")
    return f"{figure} {said(unit)}"


def job_links(jobs: Sequence[int]) -> Markup:
    """Links to jobs, in a row."""
    return Markup(", ").join(Markup('<a href="/jobs/{0}">{0}</a>').format(job) for job in jobs)


_ROLES: Final = {
    Role.VIEWER: lazy("looks only"),
    Role.USER: lazy("renders"),
    Role.OPERATOR: lazy("runs the farm"),
    Role.ADMIN: lazy("admin: everything"),
}


def role(name: str) -> str:
    """Return what a role may do, in a word or two."""
    return next((str(words) for known, words in _ROLES.items() if known == name), name)


FILTERS: Final = {"architecture": label, "duration": time_words, "data_size": size_words} | {
    word.__name__: word
    for word in (
        *(number, said, state, moment, image_origin, image_words, job_links, job_title, job_words, marked, sides),
        *(role, error_title, error_advice, printed),
    )
}
