"""Help with control nets: the picture that a net would be given."""

from __future__ import annotations

from flask import Response

from api.http.body import read_json
from api.http.openapi import BODY, CONTROL_PREVIEW, content, section
from api.http.parameters import ControlQuery
from api.schemas.jobs import API
from api.security import auth
from api.services import services
from api.use_cases import control_preview

PICTURE = content("image/png", "The picture at the size of the job; transparent where an inpainting net should paint.")

blueprint = section("controlnet", __name__, f"{API}/controlnet")


@blueprint.post("/preview", responses=PICTURE | BODY, openapi_extensions=CONTROL_PREVIEW)
def preview(query: ControlQuery) -> Response:
    """See what a control net would be given: its picture at the size of the job, as the preprocessor makes it.

    The body is that of a job; `controlnet`, `img2img`, `width`, `height` and `checkpoint` are read. The net's
    `model` is not looked up. A second pass prepares the picture again, at its own size.
    """
    data = control_preview.picture(services(), auth.principal(), read_json(), query.unit)
    return Response(data, mimetype="image/png", headers={"Cache-Control": "no-store"})
