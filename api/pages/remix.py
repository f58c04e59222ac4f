"""Jobs made of a picture at one press: the same with another seed, or more that are close to it."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, flash, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _, ngettext
from api.pages.form_data import read, typed
from api.schemas.jobs import JobBody, image_page
from api.security import auth
from api.sentences import refusal
from api.services import services
from api.use_cases import jobs
from shared.errors import NotFound, NotLooked, Refused
from shared.queue.queries import Span

_RANDOM: Final = "-1"
WAYS: Final = {
    "seed": {"seed": _RANDOM},
    "more": {"noise.variation_seed": _RANDOM, "noise.variation_strength": "0.2", "count": "4"},
}
"""What each way changes of a picture's parameters, as it would be typed."""

blueprint = Blueprint("remix", __name__)


@blueprint.post("/jobs/<id:job_id>/images/<id:index>/remix")
def remix(job_id: int, index: int) -> AnyResponse:
    """Submit a job like one image, changed in the way `as`, and go to it, or back to the page that asked (`back`)."""
    job = jobs.job(services(), auth.principal(), job_id, Span(index - 1, limit=1))
    way = request.args.get("as", "")
    if not job.images or job.params.upscale or way not in WAYS:
        raise NotFound(_("There is no such picture, or this cannot be done with it."))
    given = typed(job.spec.image(index).model_dump())
    for name, text in WAYS[way].items():
        given[name] = text
    given["pool"] = job.pool
    is_in_place = request.form.get("back") == "/"
    try:
        made = jobs.submit(services(), auth.principal(), read(given)).job
    except (Refused, NotLooked) as refused:
        flash(refusal(refused))
        return redirect("/" if is_in_place else image_page(job_id, index), 303)
    flash(queued(made))
    return redirect(f"/#job-{made.id}" if is_in_place else made.links.page, 303)


def queued(job: JobBody) -> str:
    """Return what tells a person that a job was submitted from this page."""
    number = job.count
    return ngettext(
        "%(num)s picture queued as job %(job)s.", "%(num)s pictures queued as job %(job)s.", number, job=job.id
    )
