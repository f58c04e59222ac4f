"""Requests of AUTOMATIC1111's clients beside `/sdapi/v1`: a task's progress, and the ControlNet extension."""

from __future__ import annotations

from flask import Response

from api.compat.sdapi import bodies, control, errors, live
from api.compat.sdapi.control import Detect
from api.compat.sdapi.live import Task
from api.compat.sdapi.views import JSON, answering, as_json
from api.http.body import read_json
from api.http.openapi import door, takes
from api.security import auth
from api.services import services

blueprint = door("Stable Diffusion web UI, beside", __name__, "", errors.ERRORS, (Task, Detect))


@blueprint.post("/internal/progress", responses=JSON, openapi_extensions=takes(Task))
def task_progress() -> Response:
    """Say how far one of one's own requests is, or all of them."""
    return as_json(live.task(services(), auth.principal(), bodies.read(Task, read_json())))


@blueprint.get("/internal/pending-tasks", responses=JSON)
def pending_tasks() -> Response:
    """List one's own requests that have not ended."""
    return as_json(live.pending(services(), auth.principal()))


@blueprint.get("/internal/ping", responses=JSON)
def ping() -> Response:
    """Answer."""
    return as_json({})


for _name, (_summary, _make) in control.LISTS.items():
    blueprint.get(f"/controlnet/{_name}", responses=JSON)(answering(f"controlnet_{_name}", _make, _summary))


@blueprint.post("/controlnet/detect", responses=JSON, openapi_extensions=takes(Detect))
def controlnet_detect() -> Response:
    """See pictures as a preprocessor prepares them."""
    return as_json(control.detected(services(), auth.principal(), bodies.read(Detect, read_json())))
