"""The use cases that other systems' APIs need beside those of the farm's own: what is open there, what is set there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from api.schemas.jobs import JobBody
from api.services import Services
from api.use_cases import jobs
from shared.accounts.principal import Principal
from shared.db.sessions import transact
from shared.errors import Conflict, NotFound
from shared.jobs import door_options
from shared.queue import queries

_SHOWN: Final = 8  # jobs that one look shows: each is a question of its own
_MOST: Final = 10_000


def open_jobs(services: Services, who: Principal, door: str) -> list[JobBody]:
    """Return the owner's jobs that came through a door and have not ended, the oldest first; of many the first."""
    return [jobs.job(services, who, job_id) for job_id in _open(services, who, door, _SHOWN)]


def cancel(services: Services, who: Principal, door: str) -> None:
    """Cancel all jobs of the owner that came through a door and have not ended."""
    for job_id in _open(services, who, door, _MOST):
        with suppress(NotFound, Conflict):  # it has ended meanwhile
            jobs.cancel(services, who, job_id)


def options(services: Services, who: Principal, door: str) -> dict[str, Any]:
    """Return what the owner has set at a door."""
    return transact(services.sessions, lambda session: door_options.find(session, who.owner, door))


def set_options(services: Services, who: Principal, door: str, changes: Mapping[str, Any]) -> None:
    """Set options of the owner at a door; None takes one back. Raises Refused."""
    transact(services.sessions, lambda session: door_options.change(session, who.owner, door, changes))


def _open(services: Services, who: Principal, door: str, most: int) -> list[int]:
    return transact(services.sessions, lambda session: queries.open_at_door(session, who.owner, door, most))
