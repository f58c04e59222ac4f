"""The limits that are set for owners, in SQL, with what submissions and workers keep there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.limits import AS_ROLE, LIMITS, OwnerLimits, words
from shared.accounts.principal import Principal
from shared.db.tables import OwnerLimit


class LimitRow(NamedTuple):
    """The limits that are set for an owner. Those that are not in `given` are the role's; None lifts a limit."""

    owner: str
    given: Mapping[str, Any]
    role_running: int | None = None  # of the role in which the owner submitted last: workers know no roles
    set_at: datetime | None = None
    set_by: str | None = None

    def over(self, of_role: OwnerLimits) -> OwnerLimits:
        """Return the limits that count for the owner in a role."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.given.items()
            if name in LIMITS  # a newer version may know others
        }
        values |= {"role_running": of_role.running, "is_told": self.role_running == of_role.running}
        return replace(of_role, **values)


_SET: Final = text("""
    INSERT INTO owner_limits AS known (owner, given, set_at, set_by)
    VALUES (:owner, CAST(:given AS jsonb), clock_timestamp(), :by)
    ON CONFLICT (owner) DO UPDATE
    SET given = (known.given || excluded.given) - CAST(:dropped AS text[]),
        set_at = excluded.set_at,
        set_by = excluded.set_by
""")
_CLEAR: Final = text("""
    UPDATE owner_limits
    SET given = '{}',
        set_at = clock_timestamp(),
        set_by = :by
    WHERE owner = :owner
""")
_TELL: Final = text("""
    INSERT INTO owner_limits AS known (owner, role_running)
    VALUES (:owner, :running)
    ON CONFLICT (owner) DO UPDATE
    SET role_running = excluded.role_running
""")


def every(session: Session) -> list[LimitRow]:
    """Return what is set for each owner, by their names."""
    return [_row(one) for one in session.scalars(select(OwnerLimit).order_by(OwnerLimit.owner))]


def find(session: Session, owner: str) -> LimitRow:
    """Return what is set for an owner, which may be nothing."""
    found = session.get(OwnerLimit, owner, populate_existing=True)
    return _row(found) if found else LimitRow(owner, {})


def change(session: Session, owner: str, wanted: Mapping[str, Any], by: Principal) -> LimitRow:
    """Set limits of an owner; those that are `AS_ROLE` become the role's again, and others stay.

    Only limits that differ from before are set, and written down.
    """
    known = session.get(OwnerLimit, owner, populate_existing=True, with_for_update=True)
    before = dict(known.given) if known else {}
    asked = {name: [*value] if isinstance(value, tuple) else value for name, value in wanted.items()}  # as in JSON
    changed = {name: value for name, value in asked.items() if value != before.get(name, AS_ROLE)}
    if changed:
        given = {name: value for name, value in changed.items() if value != AS_ROLE}
        dropped = [name for name in changed if name not in given]
        session.execute(_SET, {"owner": owner, "given": json.dumps(given), "dropped": dropped, "by": by.owner})
        audit.note(session, by, Action.LIMITS_SET, "limits", whose=owner, detail=words(changed))
    return find(session, owner)


def clear(session: Session, owner: str, by: Principal) -> LimitRow:
    """Give an owner the limits of the role alone, which is written down."""
    session.execute(_CLEAR, {"owner": owner, "by": by.owner})
    audit.note(session, by, Action.LIMITS_CLEARED, "limits", whose=owner)
    return find(session, owner)


def tell_workers(session: Session, owner: str, limits: OwnerLimits) -> None:
    """Write down how many images of an owner the role lets run, for workers, if it is not known there."""
    if not limits.is_told:
        session.execute(_TELL, {"owner": owner, "running": limits.role_running})


def _row(row: OwnerLimit) -> LimitRow:
    return LimitRow(row.owner, row.given, row.role_running, row.set_at, row.set_by)
