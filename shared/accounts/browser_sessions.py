"""Sessions of browsers, in SQL, so that signing out or removing a key ends them everywhere.

The browser holds a random id; the table its digest, and of the key only a mark that the farm's secret makes.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import timedelta
from hashlib import sha256
from typing import Final

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from shared.db.tables import BrowserSession

IDLE: Final = timedelta(days=7)
LONGEST: Final = timedelta(days=30)
LONGEST_OF_PROVIDER: Final = timedelta(hours=12)  # who has left there is asked again
MOST_OF_AN_OWNER: Final = 100
_NOTED: Final = timedelta(minutes=5)  # a use is written down so often at most

_ENDED: Final = or_(
    BrowserSession.used_at < func.now() - IDLE,
    BrowserSession.created_at < func.now() - LONGEST,
    and_(BrowserSession.role.is_not(None), BrowserSession.created_at < func.now() - LONGEST_OF_PROVIDER),
)


def begin(session: Session, owner: str, key_mark: str, role: str | None = None) -> str:
    """Return the id of a new session of `owner`; what has ended goes, and of too many those used longest ago.

    `role`: that a provider gave; then `key_mark` is the provider's.
    """
    identifier = secrets.token_urlsafe(32)
    session.execute(delete(BrowserSession).where(_ENDED))
    of_owner = select(BrowserSession.digest).where(BrowserSession.owner == owner)
    old = of_owner.order_by(BrowserSession.used_at.desc(), BrowserSession.digest).offset(MOST_OF_AN_OWNER - 1)
    session.execute(delete(BrowserSession).where(BrowserSession.digest.in_(old)))
    session.add(BrowserSession(digest=_digest(identifier), owner=owner, key_mark=key_mark, role=role))
    return identifier


def find(session: Session, identifier: str) -> BrowserSession | None:
    """Return a session that lasts, with the mark of the key that it was begun with: it ends with that key."""
    digest = _digest(identifier)
    looked = select(BrowserSession, (BrowserSession.used_at < func.now() - _NOTED).label("is_old"))
    found = session.execute(looked.where(BrowserSession.digest == digest, ~_ENDED)).one_or_none()
    if found is None:
        return None
    if found.is_old:
        session.execute(update(BrowserSession).where(BrowserSession.digest == digest).values(used_at=func.now()))
    session.expunge(found[0])
    return found[0]


def lasting(session: Session, digests: Collection[str]) -> list[str]:
    """Return those of these digests whose sessions last."""
    return list(session.scalars(select(BrowserSession.digest).where(BrowserSession.digest.in_(digests), ~_ENDED)))


def end(session: Session, identifier: str) -> None:
    """Forget a session."""
    session.execute(delete(BrowserSession).where(BrowserSession.digest == _digest(identifier)))


def _digest(identifier: str) -> str:
    return sha256(identifier.encode()).hexdigest()
