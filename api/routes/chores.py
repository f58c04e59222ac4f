"""The chores over HTTP."""

from __future__ import annotations

from flask import Response

from api.http.openapi import answers, section
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.workers import ChoresBody
from api.services import services
from api.use_cases import workers

blueprint = section("chores", __name__, f"{API}/chores")


@blueprint.get("", responses=answers(ChoresBody, 200))
def chores() -> Response:
    """Say whether a process does the chores, and list the overdue ones."""
    return reply(workers.standing_of_chores(services()))
