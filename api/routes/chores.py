"""The chores over HTTP: whether they are done."""

from __future__ import annotations

from flask import Response

from api import use_cases
from api.documents import answers, section
from api.listings import ChoresBody
from api.replies import reply
from api.representations import API
from api.services import services

blueprint = section("chores", __name__, f"{API}/chores")


@blueprint.get("", responses=answers(ChoresBody, 200))
def chores() -> Response:
    """Tell whether anybody does what has to be done now and then, and which of it is overdue."""
    return reply(use_cases.standing_of_chores(services()))
