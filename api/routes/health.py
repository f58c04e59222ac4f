"""For orchestrators: is the process alive, can it serve?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from flask import Response
from pydantic import BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.documents import answers, section
from api.replies import reply
from api.services import Services, services
from shared import migrate
from shared.errors import FarmError, Unavailable

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
    """Tell whether jobs can be taken: database there and migrated, storage writable. Redis gates nothing."""
    needed = {
        "database": _tell(_check_database),
        "migrations": _tell(_check_migrations),
        "storage": _tell(lambda farm: farm.storage.check()),
    }
    redis = _tell(_check_redis)
    if any(answer != "ok" for answer in needed.values()):
        return reply(ReadyBody(status="unavailable", checks=needed | {"redis": redis}), 503)
    return reply(ReadyBody(status="ready" if redis == "ok" else "degraded", checks=needed | {"redis": redis}))


def _tell(check: Callable[[Services], object]) -> str:
    try:
        check(services())
    except (FarmError, SQLAlchemyError, OSError) as error:
        return str(error).splitlines()[0]
    return "ok"


def _check_database(farm: Services) -> None:
    with farm.engine.connect() as connection:
        connection.execute(text("SELECT 1"))


def _check_migrations(farm: Services) -> None:
    current, head = migrate.current(farm.settings.database), migrate.head()
    if current != head:
        raise Unavailable(
            f"the tables stand at {current or 'nothing'}, this version needs {head}: run `farm db upgrade`"
        )


def _check_redis(farm: Services) -> None:
    if not farm.events.alive():
        raise Unavailable("Redis does not answer: what runs is finished, what waits starts when it is back")
