"""Which checkpoint a foreign name of a model means."""

from __future__ import annotations

from api.services import Services
from api.use_cases import catalogue
from shared.models.catalogue import Catalogue


def known_checkpoints(services: Services) -> Catalogue:
    """Return the farm's checkpoints."""
    return catalogue.catalogue(services, "checkpoint")


def known(services: Services, name: str) -> str | None:
    """Return the name of a model if the farm has one of that name, usable or not; None: it takes its first one."""
    return name if known_checkpoints(services).meant(name, "checkpoint") else None
