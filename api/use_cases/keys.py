"""The use cases of keys: list, make, revoke. As in `api.use_cases.jobs` each opens its own transaction."""

from __future__ import annotations

import structlog

from api.schemas.keys import KeyBody, KeysBody, MadeKeyBody
from api.services import Services
from shared.accounts import keys
from shared.accounts.principal import Principal
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.errors import Forbidden

log = structlog.get_logger(__name__)


def listed(services: Services, who: Principal, *, everybodys: bool = False) -> KeysBody:
    """Return one's own keys, or everybody's. Raises Forbidden."""
    if everybodys and who.scope != EVERYBODYS:
        raise Forbidden("Only an admin sees everybody's keys.")
    found = transact(services.sessions, lambda session: keys.listed(session, EVERYBODYS if everybodys else who.own))
    return KeysBody(keys=[KeyBody.of(view) for view in found])


def create(services: Services, who: Principal, given: object) -> MadeKeyBody:
    """Make a key as a JSON object says, for oneself or, as an admin, for others. Raises Refused."""
    wanted, others = keys.parse(given, who.owner), bool(services.settings.api_keys) or services.settings.signs_in
    made = transact(services.sessions, lambda session: keys.create(session, wanted, who, others=others))
    log.info("key made", owner=wanted.owner, role=wanted.role.value, key=made.view.id, by=who.owner)
    return MadeKeyBody.made(made)


def revoke(services: Services, who: Principal, key_id: int) -> KeyBody:
    """Have a key open nothing any more. Raises NotFound, Forbidden."""
    view = transact(services.sessions, lambda session: keys.revoke(session, who, key_id))
    log.info("key revoked", owner=view.owner, key=view.id, by=who.owner)
    return KeyBody.of(view)
