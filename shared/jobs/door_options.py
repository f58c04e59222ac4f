"""What an owner has set at another system's API: values by the names that they have there, for all later requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.tables import DoorOptions
from shared.errors import FieldError, Refused

LARGEST: Final = 2**14  # characters of them as JSON: every request of these clients reads them


def find(session: Session, owner: str, door: str) -> dict[str, Any]:
    """Return what an owner has set."""
    set_ones = select(DoorOptions.options).where(DoorOptions.owner == owner, DoorOptions.door == door)
    return session.scalar(set_ones) or {}


def change(session: Session, owner: str, door: str, changes: Mapping[str, Any]) -> None:
    """Set what `changes` names, and nothing else; None takes a value back. Raises Refused if it becomes too long."""
    first = insert(DoorOptions).values(owner=owner, door=door, options={}, changed_at=func.now())
    session.execute(first.on_conflict_do_nothing())
    mine = select(DoorOptions).where(DoorOptions.owner == owner, DoorOptions.door == door)
    row = session.scalars(mine.with_for_update()).one()  # so that two changes at once both count
    options = {name: value for name, value in (row.options | dict(changes)).items() if value is not None}
    if (size := len(json.dumps(options))) > LARGEST:
        accepted = f"at most {LARGEST:,} characters of options"
        raise Refused("The options are too long.", (FieldError("body", f"is {size:,} characters long", accepted),))
    row.options, row.changed_at = options, func.now()
