"""Workers: who they are, how to take one out of the farm for a while, and how the farm's chores stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import structlog
from sqlalchemy.orm import Session

from api.schemas.workers import ChoresBody, WorkersBody
from api.services import Services
from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.principal import LOCAL, Principal
from shared.db import locks
from shared.db.sessions import transact
from shared.models.catalogue import names_by_hash
from shared.queue import drains, history, pools, queries

log = structlog.get_logger(__name__)

BY_HAND: Final = "by hand"
Change = Callable[[Session], tuple[list[str], WorkersBody]]


def drain(services: Services, who: Principal, wanted: str, reason: str = "") -> WorkersBody:
    """Have the workers that `wanted` means, a name or a pattern, take nothing new. Raises NotFound."""

    def drain_workers(session: Session) -> tuple[list[str], WorkersBody]:
        names = drains.matching(session, wanted)
        by = BY_HAND if who == LOCAL else f"by {who.owner}"  # without keys there is no owner to name
        drains.drain(session, names, reason or by)
        for name in names:
            audit.note(session, who, Action.WORKER_DRAINED, f"worker {name}", detail=reason)
        return names, _body(session)

    return _changed(services, who, "workers drained", drain_workers)


def resume(services: Services, who: Principal, wanted: str) -> WorkersBody:
    """Let the workers that `wanted` means take images again. Raises NotFound."""

    def resume_workers(session: Session) -> tuple[list[str], WorkersBody]:
        names = drains.matching(session, wanted)
        drains.resume(session, names)
        for name in names:
            audit.note(session, who, Action.WORKER_RESUMED, f"worker {name}")
        return names, _body(session)

    return _changed(services, who, "workers resumed", resume_workers)


def _changed(services: Services, who: Principal, event: str, change: Change) -> WorkersBody:
    names, seen = transact(services.sessions, change)
    log.info(event, owner=who.owner, workers=names)
    return WorkersBody(workers=[worker for worker in seen.workers if worker.name in names])


def workers(services: Services) -> WorkersBody:
    """Return the workers that are alive, and those that have died lately."""
    return transact(services.sessions, lambda session: _body(session, history.recent_deaths(session)))


def _body(session: Session, ended: Iterable[history.Deaths] = ()) -> WorkersBody:
    views = queries.workers(session)
    hashes = {sha256 for view in views for sha256 in (*view.resident, *(one.sha256 for one in view.models))}
    return WorkersBody.from_views(views, names_by_hash(session, hashes), ended)


def served_pools(services: Services) -> list[str]:
    """Return the pools that living workers serve, by name."""
    return transact(services.sessions, pools.served)


def standing_of_chores(services: Services) -> ChoresBody:
    """Return whether anybody does the farm's chores, and which are overdue."""
    return ChoresBody.from_standing(transact(services.sessions, locks.standing))
