"""What a picture's file says of how it was made."""

from __future__ import annotations

from flask import Response

from api.http.body import read_file
from api.http.openapi import TOO_LARGE, UPLOAD, answers, section
from api.http.responses import reply
from api.schemas.jobs import API, PapersBody
from api.security import auth
from api.services import services
from api.use_cases import images

blueprint = section("png-info", __name__, f"{API}/png-info")


@blueprint.post("", responses=answers(PapersBody, 200) | TOO_LARGE, openapi_extensions=UPLOAD)
def png_info() -> Response:
    """Read the parameters that a picture carries, this farm's or another program's.

    `params` can be submitted as they are; what of the text cannot be done here is told in `left_out`.
    """
    return reply(images.papers(services(), auth.owner(), read_file()))
