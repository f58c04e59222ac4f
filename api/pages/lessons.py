"""The page of lessons: experiments that are run at one press, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlencode

from flask import Blueprint, flash, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _
from api.pages import status_line
from api.schemas.jobs import JobBody
from api.security import auth
from api.sentences import refusal
from api.services import services
from api.use_cases import catalogue as catalogue_use_cases
from api.use_cases import lessons as use_cases
from api.use_cases import sheets
from shared.admission.checkpoints import allowed_checkpoints
from shared.errors import NotFound, NotLooked, Refused
from shared.jobs.lessons import BY_NAME, LESSONS, MADE, Lesson
from shared.models.catalogue import Entry
from shared.sheets.arrangement import Arrangement, arranged

CHOICES: Final = ("checkpoint", "other")
blueprint = Blueprint("lessons_pages", __name__, url_prefix="/lessons")


@dataclass(frozen=True)
class Card:
    """One experiment with the owner's latest run of it."""

    lesson: Lesson
    job: JobBody | None
    sheet: Arrangement | None  # of a job with axes
    has_picture: bool

    @classmethod
    def of(cls, lesson: Lesson, job: JobBody | None) -> Self:
        """Return the card of an experiment; None: its owner has not run it yet."""
        sheet = arranged(job.spec.axes) if job and job.axes else None
        return cls(lesson, job, sheet, job is not None and sheets.latest(services(), job) is not None)


@blueprint.get("")
def lessons() -> str:
    """Show the experiments, each with its latest run."""
    named = [request.args.get(name, "") for name in CHOICES]
    found = catalogue_use_cases.offered(services(), auth.principal(), ("checkpoint",), [name for name in named if name])
    usable = allowed_checkpoints(found, services().limits(auth.principal()))
    runs = use_cases.latest(services(), auth.principal())
    return render_template(
        "lessons.html",
        cards=[Card.of(lesson, runs.get(lesson.name)) for lesson in (*LESSONS, MADE)],
        checkpoints=usable,
        chosen=dict(zip(CHOICES, _chosen(usable, named), strict=True)),
        farm=status_line.line(services()),
    )


@blueprint.post("")
def run() -> AnyResponse:
    """Run an experiment and go to its job, or stay where the form says so (`back`); or open it in the form."""
    checkpoint, other = (request.form.get(name, "") for name in CHOICES)
    query = {"checkpoint": checkpoint, "other": other}
    if opens := request.form.get("open"):
        return redirect(f"/?{urlencode({'lesson': opens, **query})}", 303)
    lesson = BY_NAME.get(request.form.get("lesson", ""))
    if lesson is None:
        raise NotFound(_("There is no such experiment."))
    here = f"/lessons?{urlencode(query)}#{lesson.name}"
    try:
        submitted = use_cases.run(services(), auth.principal(), lesson, checkpoint, other)
    except (Refused, NotLooked) as refused:
        flash(refusal(refused))
        return redirect(here, 303)
    flash(_("The experiment “%(title)s” is in the queue as job %(job)s.", title=_(lesson.title), job=submitted.job.id))
    return redirect(here if request.form.get("back") == "/lessons" else submitted.job.links.page, 303)


def _chosen(usable: Sequence[Entry], named: Sequence[str]) -> tuple[str, str]:
    """Return the titles of the checkpoints that are chosen, or would be: the first one, and the next beside it."""
    titles = [entry.title for entry in usable]
    first = next((title for title in titles if title == named[0]), titles[0] if titles else "")
    others = [title for title in titles if title != first]
    return first, next((title for title in others if title == named[1]), others[0] if others else first)
