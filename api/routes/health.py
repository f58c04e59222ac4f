"""Probes for orchestrators: is the process alive, can it serve?"""

from __future__ import annotations

from typing import Literal

from flask import Response
from pydantic import BaseModel, Field

from api.http.openapi import answers, section
from api.http.responses import reply
from api.readiness import OK
from api.services import services

blueprint = section("health", __name__)


class AliveBody(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyBody(BaseModel):
    """Whether the API can serve, and the state of each part of the farm."""

    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="degraded: jobs are accepted and wait until Redis works."
    )
    checks: dict[str, str] = Field(description="ok, or the fault.")
    ages: dict[str, float | None] = Field(description="Seconds since each check; null if it has not run yet.")


@blueprint.get("/livez", responses=answers(AliveBody, 200))
def livez() -> Response:
    """Answer as long as the process lives."""
    return reply(AliveBody())


@blueprint.get("/readyz", responses=answers(ReadyBody, 200, 503))
def readyz() -> Response:
    """Say whether jobs can be accepted: database reachable and migrated, storage writable. Redis may be away.

    Answers at once with the latest results. Checks run in the background: every second, of a folder of pictures every
    5 s, of a bucket every minute.
    """
    known = services().readiness.known()
    checks = {part: said.words for part, said in known.items()}
    ages = {part: None if said.age_seconds is None else round(said.age_seconds, 1) for part, said in known.items()}
    missing = {part for part, says in checks.items() if says != OK}
    if missing - {"redis"}:
        return reply(ReadyBody(status="unavailable", checks=checks, ages=ages), 503)
    return reply(ReadyBody(status="degraded" if missing else "ready", checks=checks, ages=ages))
