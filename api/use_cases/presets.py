"""The use cases of presets. As in `api.use_cases.jobs` each function opens its own transaction."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.orm import Session

from api.schemas.presets import PresetBody, PresetsBody
from api.services import Services
from shared.accounts.principal import Principal
from shared.admission.parse import parse, refused
from shared.db.sessions import transact
from shared.jobs import presets


class Kept(NamedTuple):
    """A preset as it is kept now, and whether its name is new."""

    preset: PresetBody
    is_new: bool


def every(services: Services, who: Principal) -> PresetsBody:
    """Return the owner's presets."""
    found = transact(services.sessions, lambda session: presets.every(session, who.owner))
    return PresetsBody(presets=[PresetBody.of(one) for one in found])


def find(services: Services, who: Principal, name: str) -> PresetBody:
    """Return one of the owner's presets. Raises NotFound."""
    return PresetBody.of(transact(services.sessions, lambda session: presets.find(session, who.owner, name)))


def keep(services: Services, who: Principal, name: str, given: object) -> Kept:
    """Keep the parameters that were given, a JSON object as it came. Raises Refused that names every wrong field.

    Whether the farm has what they name is seen when they are submitted.
    """
    request = parse(given, who.owner, services.limits(who))
    if request.problems:
        raise refused(request.problems)
    params, left_out = presets.lasting(request.params)

    def kept(session: Session) -> Kept:
        is_new = presets.keep(session, who.owner, name, params)
        return Kept(PresetBody.of(presets.find(session, who.owner, name), left_out), is_new)

    return transact(services.sessions, kept)


def drop(services: Services, who: Principal, name: str) -> None:
    """Delete one of the owner's presets. Raises NotFound."""
    transact(services.sessions, lambda session: presets.drop(session, who.owner, name))
