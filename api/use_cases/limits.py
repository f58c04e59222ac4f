"""The use cases of limits: what is left to oneself; for an admin what is set for owners. As in `api.use_cases.jobs`
each opens its own transaction.
"""

from __future__ import annotations

import structlog

from api.schemas.limits import LimitBody, LimitsBody, OwnersLimitsBody, SetLimitsBody
from api.services import Services
from shared.accounts import limit_rows, limits
from shared.accounts.principal import Principal
from shared.admission import allowance
from shared.db.sessions import transact

log = structlog.get_logger(__name__)


def own(services: Services, who: Principal) -> LimitsBody:
    """Return one's limits, with what is used of each and what is left."""
    found = transact(services.sessions, lambda session: allowance.balances(session, who.owner, who.limits))
    own = who.limits
    return LimitsBody(
        owner=who.owner,
        limits=[LimitBody.of(one) for one in found],
        checkpoints=own.checkpoints,
        pools=own.pools,
        urgent=services.limits(who).may_be_urgent(who.owner),
    )


def every(services: Services) -> OwnersLimitsBody:
    """Return what is set for each owner."""
    found = transact(services.sessions, limit_rows.every)
    return OwnersLimitsBody(owners=[SetLimitsBody.of(row) for row in found if row.set_at])


def change(services: Services, who: Principal, owner: str, given: object) -> SetLimitsBody:
    """Set limits of an owner as a JSON object says; others stay as they are. Raises Refused."""
    name, wanted = limits.owner(owner), limits.parse(given)
    row = transact(services.sessions, lambda session: limit_rows.change(session, name, wanted, who))
    services.keyring.forget()
    log.info("limits set", owner=name, limits=dict(row.given), by=who.owner)
    return SetLimitsBody.of(row)


def clear(services: Services, who: Principal, owner: str) -> SetLimitsBody:
    """Give an owner the limits of the role alone. Raises Refused."""
    name = limits.owner(owner)
    row = transact(services.sessions, lambda session: limit_rows.clear(session, name, who))
    services.keyring.forget()
    log.info("limits cleared", owner=name, by=who.owner)
    return SetLimitsBody.of(row)
