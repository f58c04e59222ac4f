"""Pictures over HTTP: find them, mark them, delete and restore them, fetch several as one zip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flask import Response

from api.http.body import read_as
from api.http.openapi import (
    BODY,
    CONFLICT,
    NOT_FOUND,
    PICTURE_ACTION,
    PICTURE_CHANGE,
    PICTURE_CHOICE,
    answers,
    content,
    section,
)
from api.http.parameters import FacetsQuery, ImagePath
from api.http.responses import reply
from api.http.zip_stream import zipped
from api.schemas.jobs import API
from api.schemas.pictures import (
    ChangedBody,
    FacetsBody,
    PictureAction,
    PictureBody,
    PictureChange,
    PictureChoice,
    PicturePageBody,
    PicturesQuery,
)
from api.security import auth
from api.services import services
from api.use_cases import pictures as use_cases
from shared.pictures.filters import PictureId

ZIP: Final = content("application/zip", "The pictures.")

blueprint = section("pictures", __name__, f"{API}/pictures")


@blueprint.get("", responses=answers(PicturePageBody, 200))
def pictures(query: PicturesQuery) -> Response:
    """List finished pictures of all jobs, the latest first; filters narrow them."""
    return reply(use_cases.page(services(), auth.principal(), query))


@blueprint.get("/facets", responses=answers(FacetsBody, 200))
def facets(query: FacetsQuery) -> Response:
    """List the checkpoints, samplers, adapters and tags that the pictures can be filtered by."""
    return reply(use_cases.facets(services(), auth.principal(), query.owner))


@blueprint.get("/<id:job_id>/<id:index>", responses=answers(PictureBody, 200) | NOT_FOUND)
def picture(path: ImagePath) -> Response:
    """Get one picture with its parameters."""
    return reply(use_cases.picture(services(), auth.principal(), PictureId(path.job_id, path.index)))


@blueprint.patch(
    "/<id:job_id>/<id:index>",
    responses=answers(PictureBody, 200) | NOT_FOUND | BODY,
    openapi_extensions=PICTURE_CHANGE,
)
def change(path: ImagePath) -> Response:
    """Make a picture a favourite or none, and replace its tags."""
    wanted = PictureId(path.job_id, path.index)
    return reply(use_cases.mark(services(), auth.principal(), wanted, read_as(PictureChange)))


@blueprint.post("/actions", responses=answers(ChangedBody, 200) | BODY, openapi_extensions=PICTURE_ACTION)
def act() -> Response:
    """Delete, restore, mark or tag several pictures, or all that a filter finds.

    A deleted picture is hidden at once and can be restored for an hour; its job keeps its record. The answer's `undo`
    restores all of a deletion. `is_all` is false if there are more pictures than one request may take time for.
    """
    return reply(use_cases.act(services(), auth.principal(), read_as(PictureAction)))


@blueprint.post("/zip", responses=ZIP | CONFLICT | NOT_FOUND | BODY, openapi_extensions=PICTURE_CHOICE)
def archive() -> Response:
    """Get several pictures, or all that a filter finds, as one zip file: at most 1,000."""
    return zip_file(use_cases.archive(services(), auth.principal(), read_as(PictureChoice)))


def zip_file(files: Iterable[tuple[str, bytes]]) -> Response:
    """Return the answer that streams pictures as a zip file."""
    headers = {"Content-Disposition": 'attachment; filename="pictures.zip"', "Cache-Control": "no-store"}
    return Response(zipped(files), mimetype="application/zip", headers=headers)
