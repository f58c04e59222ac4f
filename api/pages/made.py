"""The page that shows how a picture was made, in five steps."""

from __future__ import annotations

from flask import Blueprint, render_template

from api.security import auth
from api.services import services
from api.use_cases import jobs as use_cases
from api.use_cases.intermediates import intermediates
from shared.queue.queries import Span

blueprint = Blueprint("made_pages", __name__, url_prefix="/jobs")


@blueprint.get("/<id:job_id>/images/<id:index>/made")
def made(job_id: int, index: int) -> str:
    """Show what was kept of how an image was made."""
    kept = intermediates(services(), auth.principal(), job_id, index)
    job = use_cases.job(services(), auth.principal(), job_id, Span(index - 1, limit=1))
    return render_template("made.html", job=job, index=index, params=job.spec.image(index), made=kept)
