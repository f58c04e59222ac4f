"""`/metrics`, for Prometheus. A farm with keys asks for one here too: the numbers are those of all owners."""

from __future__ import annotations

from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.metrics import EXTENSION

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Return every number, in Prometheus's text form."""
    return Response(generate_latest(current_app.extensions[EXTENSION]), content_type=CONTENT_TYPE_LATEST)
