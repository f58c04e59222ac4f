"""The contact sheet of a job: as a picture, and as a table in two forms."""

from __future__ import annotations

from flask import Response, request

from api import spreadsheets
from api.http.openapi import NOT_FOUND, UNCHANGED, answers, content, section
from api.http.parameters import JobPath
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.sheets import SheetBody
from api.security import auth
from api.services import services
from api.use_cases import sheets

PNG = content("image/png", "Every picture with the titles of its column and row.")
CSV = content("text/csv", "A line for each image.")

blueprint = section("images", __name__, f"{API}/jobs", name="sheets")


@blueprint.get("/<id:job_id>/sheet.png", responses=PNG | UNCHANGED | NOT_FOUND)
def picture(path: JobPath) -> Response:
    """Get the contact sheet of a job with axes, once all its images have ended.

    It is made again when images that failed have been rendered again.
    """
    stored = sheets.picture(services(), auth.principal(), path.job_id)
    unchanged = request.if_none_match.contains_weak(stored.tag)
    answer = Response(status=304) if unchanged else Response(stored.read(), mimetype="image/png")
    answer.set_etag(stored.tag)
    answer.headers["Cache-Control"] = "private, no-cache"
    answer.headers["Content-Disposition"] = f'inline; filename="sheet-{path.job_id}.png"'
    return answer


@blueprint.get("/<id:job_id>/sheet.csv", responses=CSV | NOT_FOUND)
def as_csv(path: JobPath) -> Response:
    """Get the images of a job as comma-separated values, with all that they change."""
    text = sheets.as_csv(sheets.table(services(), auth.principal(), path.job_id))
    return spreadsheets.download(text, f"sheet-{path.job_id}.csv")


@blueprint.get("/<id:job_id>/sheet.json", responses=answers(SheetBody, 200) | NOT_FOUND)
def as_json(path: JobPath) -> Response:
    """Get the images of a job with their titles, what they change and what they share."""
    return reply(sheets.table(services(), auth.principal(), path.job_id))
