"""The events of a job, as server-sent events."""

from __future__ import annotations

from flask import Response, request

from api.http import sse
from api.http.openapi import EVENTS, NOT_FOUND, content, section
from api.http.parameters import JobPath
from api.schemas.jobs import API
from api.security import auth
from api.services import services
from api.use_cases import jobs

STREAM = content(
    "text/event-stream",
    "`progress`, `image` and `job` events with ids, `preview` events without; the last one is `end`.",
)

blueprint = section("jobs", __name__, f"{API}/jobs", name="events")


@blueprint.get("/<id:job_id>/events", responses=STREAM | {"204": None} | NOT_FOUND, openapi_extensions=EVENTS)
def events(path: JobPath) -> Response:
    """Follow a job until it has ended.

    Each process has some hundred streams, of one owner at most half. Beyond that the answer is 503: poll the job
    instead. A client that comes back to a job that has ended gets 204, which tells browsers to stop.
    """
    farm, who = services(), auth.principal()
    after = sse.event_id(request.headers.get("Last-Event-ID"))
    if jobs.state(farm, who, path.job_id).is_final and after:
        return Response(status=204)
    stream = sse.Stream(farm, who, path.job_id, after)
    answer = Response(stream, mimetype="text/event-stream", direct_passthrough=True)  # the server sends it as it is
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would delay events until its buffer is full
    return answer
