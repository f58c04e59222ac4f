"""Requests of AUTOMATIC1111's clients beside `/sdapi/v1`: a task's progress, and the ControlNet extension."""

from __future__ import annotations

import json
from typing import Final

from flask import Response
from flask_openapi3.types import ResponseDict

from api.compat.sdapi import bodies, control, errors, live
from api.compat.sdapi.control import Detect
from api.compat.sdapi.live import Task
from api.http.body import read_json
from api.http.openapi import door, takes
from api.security import auth
from api.services import services

_JSON: Final[ResponseDict] = {"200": {"description": "As the program answers.", "content": {"application/json": {}}}}

blueprint = door("Stable Diffusion web UI, beside", __name__, "", errors.ERRORS, (Task, Detect))


@blueprint.post("/internal/progress", responses=_JSON, openapi_extensions=takes(Task))
def task_progress() -> Response:
    """Say how far one of one's own requests is, or all of them."""
    return _answer(live.task(services(), auth.principal(), bodies.read(Task, read_json())))


@blueprint.get("/internal/pending-tasks", responses=_JSON)
def pending_tasks() -> Response:
    """List one's own requests that have not ended."""
    return _answer(live.pending(services(), auth.principal()))


@blueprint.get("/internal/ping", responses=_JSON)
def ping() -> Response:
    """Answer."""
    return _answer({})


@blueprint.get("/controlnet/version", responses=_JSON)
def controlnet_version() -> Response:
    """Get the version of the extension's API."""
    return _answer(control.version(services()))


@blueprint.get("/controlnet/settings", responses=_JSON)
def controlnet_settings() -> Response:
    """Get how many ControlNets a picture may follow."""
    return _answer(control.settings(services()))


@blueprint.get("/controlnet/model_list", responses=_JSON)
def controlnet_models() -> Response:
    """List the ControlNets."""
    return _answer(control.models(services()))


@blueprint.get("/controlnet/module_list", responses=_JSON)
def controlnet_modules() -> Response:
    """List the preprocessors."""
    return _answer(control.modules(services()))


@blueprint.get("/controlnet/control_types", responses=_JSON)
def controlnet_types() -> Response:
    """List preprocessors and ControlNets by what pictures show."""
    return _answer(control.types(services()))


@blueprint.post("/controlnet/detect", responses=_JSON, openapi_extensions=takes(Detect))
def controlnet_detect() -> Response:
    """See pictures as a preprocessor prepares them."""
    return _answer(control.detected(services(), auth.principal(), bodies.read(Detect, read_json())))


def _answer(body: object) -> Response:
    return Response(json.dumps(body), mimetype="application/json", headers={"Cache-Control": "no-store"})
