"""The workers over HTTP: list, drain, resume."""

from __future__ import annotations

from flask import Response

from api.http.openapi import NOT_FOUND, answers, section
from api.http.parameters import DrainQuery, WorkerPath
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.workers import WorkersBody
from api.security import auth
from api.services import services
from api.use_cases import workers as use_cases

blueprint = section("workers", __name__, f"{API}/workers")


@blueprint.get("", responses=answers(WorkersBody, 200))
def workers() -> Response:
    """List the living workers, what each is doing, and its loaded checkpoints."""
    return reply(use_cases.workers(services()))


@blueprint.post("/<path:name>/drain", responses=answers(WorkersBody, 200) | NOT_FOUND)
def drain(path: WorkerPath, query: DrainQuery) -> Response:
    """Drain workers: they finish their images and take no new ones, also after a restart, until they are resumed.

    `name` is a name or a pattern such as `host/*`; `*` means all. The answer lists the living workers.
    """
    return reply(use_cases.drain(services(), auth.principal(), path.name, query.reason))


@blueprint.post("/<path:name>/resume", responses=answers(WorkersBody, 200) | NOT_FOUND)
def resume(path: WorkerPath) -> Response:
    """Let drained workers take images again; they start within one heartbeat."""
    return reply(use_cases.resume(services(), auth.principal(), path.name))
