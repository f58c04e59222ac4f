"""The farm's queue over HTTP, for its operators."""

from __future__ import annotations

from flask import Response

from api.http.openapi import CONFLICT, NOT_FOUND, answers, section
from api.http.parameters import JobPath, QueueQuery
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.queue import QueueBody, QueueChangeBody
from api.security import auth
from api.services import services
from api.use_cases import queue as use_cases

CHANGED = answers(QueueChangeBody, 200) | NOT_FOUND | CONFLICT

blueprint = section("queue", __name__, f"{API}/queue")


@blueprint.get("", responses=answers(QueueBody, 200))
def queue(query: QueueQuery) -> Response:
    """List the jobs of everybody that have not ended, the latest first, without what they render."""
    return reply(use_cases.listed(services(), query.cursor, query.limit))


@blueprint.post("/<id:job_id>/hold", responses=CHANGED)
def hold(path: JobPath) -> Response:
    """Hold the queued images of anybody's job until it is released; running images go on."""
    return reply(use_cases.hold(services(), auth.principal(), path.job_id))


@blueprint.post("/<id:job_id>/release", responses=CHANGED)
def release(path: JobPath) -> Response:
    """Queue the held images of anybody's job, for whatever reason they were held."""
    return reply(use_cases.release(services(), auth.principal(), path.job_id))


@blueprint.post("/<id:job_id>/cancel", responses=CHANGED)
def cancel(path: JobPath) -> Response:
    """Cancel all images of anybody's job that have not ended."""
    return reply(use_cases.cancel(services(), auth.principal(), path.job_id))
