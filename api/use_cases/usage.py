"""The use case of usage: what images took of the farm. As in `api.use_cases.jobs` it opens its own transaction."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from api import spreadsheets
from api.schemas.usage import UsageBody
from api.services import Services
from shared.accounts import usage
from shared.accounts.principal import Principal
from shared.db.sessions import transact

_USUAL: Final = timedelta(days=29)
_COLUMNS: Final = ("day", "owner", "checkpoint", "name", "images", "gpu_seconds", "bytes")


def listed(
    services: Services, who: Principal, owner: str | None, first: date | None = None, last: date | None = None
) -> UsageBody:
    """Return what one's own images took, or those that an admin names, on the last 30 days or those asked for.

    Raises Forbidden, Refused.
    """
    whose, last = who.names(owner), last or datetime.now(UTC).date()
    span = (first or last - _USUAL, last)

    def read(session: Session) -> UsageBody:
        found = usage.days(session, whose, *span)
        return UsageBody.of(whose, span, found, usage.names(session, (one.checkpoint for one in found)))

    return transact(services.sessions, read)


def as_csv(body: UsageBody) -> str:
    """Return usage as comma-separated values; the columns have the API's names in all languages."""
    rows = [[str(one.day), *(getattr(one, name) for name in _COLUMNS[1:])] for one in body.days]
    return spreadsheets.written([_COLUMNS, *rows])
