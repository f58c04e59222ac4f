"""The page of the farm's queue, for its operators: whose jobs wait and run, without their pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flask import Blueprint, flash, redirect, render_template
from werkzeug.wrappers import Response as AnyResponse

from api.languages import Lazy, lazy, ngettext
from api.pages.query_args import number
from api.schemas.queue import QueueChangeBody
from api.security import auth
from api.sentences import said
from api.services import Services, services
from api.use_cases import queue as use_cases
from shared.accounts.principal import Principal
from shared.errors import Conflict, NotFound

JOBS_OF_A_PAGE: Final = 50
blueprint = Blueprint("queue_page", __name__, url_prefix="/queue")


@blueprint.get("")
def queue() -> str:
    """Show the jobs of everybody that have not ended."""
    cursor = number("cursor")
    page = use_cases.listed(services(), cursor, JOBS_OF_A_PAGE)
    return render_template("queue.html", jobs=page.jobs, next=page.next, cursor=cursor)


@blueprint.post("/<id:job_id>/hold")
def hold(job_id: int) -> AnyResponse:
    """Hold the queued images of a job."""
    return _change(use_cases.hold, job_id, lazy("%(images)s of job %(job)s held."))


@blueprint.post("/<id:job_id>/release")
def release(job_id: int) -> AnyResponse:
    """Queue the held images of a job."""
    return _change(use_cases.release, job_id, lazy("%(images)s of job %(job)s in the queue now."))


@blueprint.post("/<id:job_id>/cancel")
def cancel(job_id: int) -> AnyResponse:
    """Cancel a job."""
    return _change(use_cases.cancel, job_id, lazy("%(images)s of job %(job)s cancelled."))


def _change(change: Callable[[Services, Principal, int], QueueChangeBody], job_id: int, words: Lazy) -> AnyResponse:
    try:
        images = change(services(), auth.principal(), job_id).images
        flash(str(words) % {"images": ngettext("%(num)s image", "%(num)s images", images), "job": job_id})
    except (Conflict, NotFound) as error:
        flash(said(error))
    return redirect("/queue", 303)
