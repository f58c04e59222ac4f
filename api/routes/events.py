"""What happens to a job, while it happens: server-sent events."""

from __future__ import annotations

from flask import Response, request

from api import auth, sse, use_cases
from api.documents import EVENTS, NOT_FOUND, content, section
from api.representations import API
from api.requests import JobPath
from api.services import services
from shared.errors import Unavailable

STREAM = content("text/event-stream", "progress, image and job events with ids; the last one is `end`.")

blueprint = section("jobs", __name__, f"{API}/jobs", name="events")


@blueprint.get("/<id:job_id>/events", responses=STREAM | {"204": None} | NOT_FOUND, openapi_extensions=EVENTS)
def events(path: JobPath) -> Response:
    """Follow a job until it has ended.

    Each process keeps a few streams; past them the answer is 503, and a page polls the job instead. Who comes back to a
    job that has ended gets 204, on which browsers stop asking.
    """
    farm, owner = services(), auth.owner()
    after = sse.event_id(request.headers.get("Last-Event-ID"))
    if use_cases.state(farm, owner, path.job_id).is_final and after:
        return Response(status=204)
    if not farm.streams.acquire(blocking=False):
        raise Unavailable("Too many event streams are open: poll the job instead, or try again.")
    answer = Response(sse.stream(farm, owner, path.job_id, after), mimetype="text/event-stream")
    answer.call_on_close(farm.streams.release)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would keep events back until it has a buffer full
    return answer
