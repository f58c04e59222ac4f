"""Workers: who they are, how to take one out of the farm for a while, and how the farm's chores stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy.orm import Session

from api.schemas.workers import ChoresBody, WorkersBody
from api.security.auth import LOCAL_OWNER
from api.services import Services
from shared.db import locks
from shared.db.sessions import transact
from shared.queue import drains, history, pools, queries

log = structlog.get_logger(__name__)

BY_HAND: Final = "by hand"
Change = Callable[[Session], tuple[list[str], list[queries.WorkerView]]]


def drain(services: Services, owner: str, wanted: str, reason: str = "") -> WorkersBody:
    """Have the workers that `wanted` means, a name or a pattern, take nothing new. Raises NotFound."""

    def drain_workers(session: Session) -> tuple[list[str], list[queries.WorkerView]]:
        names = drains.matching(session, wanted)
        by = BY_HAND if owner == LOCAL_OWNER else f"by {owner}"  # without keys there is no owner to name
        drains.drain(session, names, reason or by)
        return names, queries.workers(session)

    return _changed(services, owner, "workers drained", drain_workers)


def resume(services: Services, owner: str, wanted: str) -> WorkersBody:
    """Let the workers that `wanted` means take images again. Raises NotFound."""

    def resume_workers(session: Session) -> tuple[list[str], list[queries.WorkerView]]:
        names = drains.matching(session, wanted)
        drains.resume(session, names)
        return names, queries.workers(session)

    return _changed(services, owner, "workers resumed", resume_workers)


def _changed(services: Services, owner: str, event: str, change: Change) -> WorkersBody:
    names, seen = transact(services.sessions, change)
    log.info(event, owner=owner, workers=names)
    return WorkersBody.from_views(view for view in seen if view.name in names)


def workers(services: Services) -> WorkersBody:
    """Return the workers that are alive, and those that have died lately."""

    def alive_and_dead(session: Session) -> WorkersBody:
        return WorkersBody.from_views(queries.workers(session), history.recent_deaths(session))

    return transact(services.sessions, alive_and_dead)


def served_pools(services: Services) -> list[str]:
    """Return the pools that living workers serve, by name."""
    return transact(services.sessions, pools.served)


def standing_of_chores(services: Services) -> ChoresBody:
    """Return whether anybody does the farm's chores, and which are overdue."""
    return ChoresBody.from_standing(transact(services.sessions, locks.standing))
