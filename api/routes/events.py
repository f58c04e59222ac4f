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
from shared.maintenance.outbox import Place

STREAM = content(
    "text/event-stream",
    "`progress`, `image` and `job` events with ids, `preview` events without; the last one is `end`.",
)

ENDS = content("text/event-stream", "`ended` events with ids; the first event is `hello`.")

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
    return _sent(sse.Stream(farm, who, path.job_id, after))


def _sent(stream: sse.Held) -> Response:
    answer = Response(stream, mimetype="text/event-stream", direct_passthrough=True)  # the server sends it as it is
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"  # nginx would delay events until its buffer is full
    return answer


ends_blueprint = section("jobs", __name__, API, name="ends")


@ends_blueprint.get("/events", responses=ENDS, openapi_extensions=EVENTS)
def ends() -> Response:
    """Follow the ends of all of your jobs.

    A stream lasts a minute. Come back with the id of the last event as Last-Event-ID, as browsers do: what ended
    meanwhile comes first, of the last week and at most 100. One that ended at the same moment as the last may come
    again.
    """
    after = Place.read(request.headers.get("Last-Event-ID", ""))
    return _sent(sse.Ends(services(), auth.principal(), after))
