"""What an owner does one at a time: two at once could pass a limit, or close a circle, that neither of them sees."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session


class OwnerLock(IntEnum):
    """The numbers of these advisory locks; `shared.db.locks` has that of the chores."""

    DEPENDENCIES = 0x57E9FA26  # changing what their jobs wait for
    WEBHOOKS = 0x57E9FA27  # making one
    SHARES = 0x57E9FA28  # making one
    LIMITS = 0x57E9FA2A  # recording work that limits count


_LOCK: Final = text("SELECT pg_advisory_xact_lock(:locks, hashtext(:owner))")


def lock_owner(session: Session, lock: OwnerLock, owner: str) -> None:
    """Wait until no other transaction holds this lock of an owner, and hold it until this one ends."""
    session.execute(_LOCK, {"locks": lock.value, "owner": owner})
