"""Help with sweeps: what one would be."""

from __future__ import annotations

from flask import Response

from api.http.body import read_json
from api.http.openapi import BODY, SWEEP_PREVIEW, answers, section
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.sweeps import SweepPreviewBody
from api.security import auth
from api.services import services
from api.use_cases import sweeps

blueprint = section("sweeps", __name__, f"{API}/sweeps")


@blueprint.post("/preview", responses=answers(SweepPreviewBody, 200) | BODY, openapi_extensions=SWEEP_PREVIEW)
def preview() -> Response:
    """See what a sweep would be: how many pictures, for how long, and what differs. Nothing is recorded.

    The body is that of a job. Reasons to refuse it stand in `problems`, with status 200.
    """
    return reply(sweeps.preview(services(), auth.principal(), read_json()))
