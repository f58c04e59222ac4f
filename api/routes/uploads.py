"""Source pictures, uploaded once and then named by their hash."""

from __future__ import annotations

from flask import Response

from api.http.body import read_file
from api.http.openapi import NOT_FOUND, TOO_LARGE, UPLOAD, answers, content, section
from api.http.parameters import UploadPath
from api.http.responses import reply, unchanging
from api.schemas.jobs import API, UploadBody, upload_link
from api.security import auth
from api.services import services
from api.use_cases import images

PICTURE = content("image/png", "The picture, without its original metadata.")

blueprint = section("uploads", __name__, f"{API}/uploads")


@blueprint.post("", responses=answers(UploadBody, 201) | TOO_LARGE, openapi_extensions=UPLOAD)
def upload() -> Response:
    """Upload a source picture or a mask.

    PNG, JPEG, WebP, BMP or the first frame of a GIF. The farm turns it upright and stores it as a PNG, with its
    transparency. The same picture has the same id. An upload that no job names is deleted some days after its last use.
    """
    body = images.upload(services(), auth.principal(), read_file())
    answer = reply(body, 201)
    answer.headers["Location"] = upload_link(body.id)
    return answer


@blueprint.get("/<hash:upload_id>", responses=PICTURE | NOT_FOUND)
def picture(path: UploadPath) -> Response:
    """Get one of your uploads."""
    return unchanging(images.uploaded(services(), auth.principal(), path.upload_id), "image/png")
