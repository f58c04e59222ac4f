"""The parameters in a picture's file."""

from __future__ import annotations

from flask import Response

from api.http.body import read_file
from api.http.openapi import TOO_LARGE, UPLOAD, answers, section
from api.http.responses import reply
from api.schemas.jobs import API, PngInfoBody
from api.security import auth
from api.services import services
from api.use_cases import images

blueprint = section("png-info", __name__, f"{API}/png-info")


@blueprint.post("", responses=answers(PngInfoBody, 200) | TOO_LARGE, openapi_extensions=UPLOAD)
def png_info() -> Response:
    """Read the parameters in a picture's file, written by this farm or another program.

    `params` can be submitted as they are; `left_out` lists the parts that this farm cannot use.
    """
    return reply(images.file_parameters(services(), auth.principal(), read_file()))
