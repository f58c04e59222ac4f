"""Which checkpoint a foreign name of a model means."""

from __future__ import annotations

from api.services import Services
from api.use_cases import catalogue
from shared.accounts.principal import Principal
from shared.admission.checkpoints import allowed_checkpoints
from shared.models.catalogue import Catalogue, Entry


def known_checkpoints(services: Services) -> Catalogue:
    """Return the farm's checkpoints."""
    return catalogue.catalogue(services, "checkpoint")


def allowed(services: Services, who: Principal) -> list[Entry]:
    """Return the checkpoints that the caller's jobs may use; that of jobs whose model is not known comes first."""
    return allowed_checkpoints(known_checkpoints(services), services.limits(who))


def allowed_one(services: Services, who: Principal, name: str) -> Entry | None:
    """Return the one checkpoint that a name means; None if there is none, or the caller may not use it."""
    checkpoints = known_checkpoints(services)
    found = checkpoints.only(name, "checkpoint")
    return found if found in allowed_checkpoints(checkpoints, services.limits(who)) else None


def known(services: Services, name: str) -> str | None:
    """Return the name of a model if the farm has one of that name, usable or not; None: it takes its first one."""
    return name if known_checkpoints(services).meant(name, "checkpoint") else None
