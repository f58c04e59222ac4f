"""For orchestrators: is the process alive, can it serve?"""

from __future__ import annotations

from typing import Literal

from flask import Response
from pydantic import BaseModel, Field

from api.documents import answers, section
from api.readiness import OK
from api.replies import reply
from api.services import services

blueprint = section("health", __name__)


class AliveBody(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyBody(BaseModel):
    """Whether the API can serve, and what each part of the farm says."""

    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="degraded: jobs are taken, and wait until Redis is back."
    )
    checks: dict[str, str] = Field(description="ok, or what is wrong.")


@blueprint.get("/livez", responses=answers(AliveBody, 200))
def livez() -> Response:
    """Answer while the process lives, whatever it waits for."""
    return reply(AliveBody())


@blueprint.get("/readyz", responses=answers(ReadyBody, 200, 503))
def readyz() -> Response:
    """Tell whether jobs can be taken: database there and migrated, storage writable. Redis gates nothing.

    Told anew once a second at most, however many ask.
    """
    checks = services().readiness.get()
    missing = {part for part, says in checks.items() if says != OK}
    if missing - {"redis"}:
        return reply(ReadyBody(status="unavailable", checks=checks), 503)
    return reply(ReadyBody(status="degraded" if missing else "ready", checks=checks))
