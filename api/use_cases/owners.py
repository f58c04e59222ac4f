"""Use case: everything that an owner has on the farm is deleted."""

from __future__ import annotations

import structlog

from api.schemas.owners import WipedBody
from api.services import Services
from shared.accounts import limits
from shared.accounts.principal import Principal
from shared.errors import FieldError, Refused
from shared.maintenance import wiping

log = structlog.get_logger(__name__)


def wipe(services: Services, who: Principal, owner: str) -> WipedBody:
    """Delete some of what an owner has, or the rest. Raises Refused for one's own, Unavailable."""
    name = limits.owner(owner)
    if name == who.owner:
        problem = FieldError("owner", "is you", "another owner, or `farm wipe` beside the database")
        raise Refused("You cannot delete everything of your own here.", (problem,))
    wiped = wiping.wipe(services.sessions, services.storage, who, name)
    services.keyring.forget()
    log.info("owner wiped", owner=name, keys=wiped.keys, jobs=wiped.jobs, left=wiped.left, by=who.owner)
    return WipedBody.of(wiped)
