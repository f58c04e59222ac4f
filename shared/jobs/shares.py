"""Share links: people without a key look at one picture, or at one job's pictures, until an end."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, delete, exists, func, not_, select, text
from sqlalchemy.orm import Session

from shared.db.owner_locks import OwnerLock, lock_owner
from shared.db.states import ImageState
from shared.db.tables import Image, Job, Picture
from shared.db.tables import Share as Row
from shared.errors import FieldError, NotFound, Refused

MOST: Final = 500  # of an owner
USUAL_DAYS: Final = 30
MOST_DAYS: Final = 365
_TOKEN_BYTES: Final = 24


@dataclass(frozen=True)
class Share:
    """One link: to the picture `index` of a job, or (None) to all of them."""

    id: int
    owner: str
    job_id: int
    index: int | None
    created_at: datetime
    expires_at: datetime


class Made(NamedTuple):
    """A new link and its token, of which only the digest is kept."""

    share: Share
    token: str


def every(session: Session, owner: str) -> list[Share]:
    """Return an owner's links that have not ended, the latest first."""
    rows = session.scalars(select(Row).where(Row.owner == owner, _lasts()).order_by(Row.id.desc()))
    return [_share(row) for row in rows]


def make(session: Session, owner: str, job_id: int, index: int | None, days: int) -> Made:
    """Make a link to a picture of an owner's job, or to the job. Raises NotFound, and Refused if there are too many.

    Links that have ended are deleted on the way.
    """
    if session.scalar(select(Job.id).where(Job.id == job_id, Job.owner == owner)) is None:
        raise NotFound(f"There is no job {job_id}.")
    deleted = exists().where(Picture.image_id == Image.id, Picture.deleted_at.is_not(None))
    picture = select(Image.id).where(Image.job_id == job_id, Image.index == index)
    shown = picture.where(Image.state == ImageState.SUCCEEDED, not_(deleted))
    if index is not None and session.scalar(shown) is None:
        raise NotFound(f"Image {index} of job {job_id} has no picture yet, or it does not exist.")
    lock_owner(session, OwnerLock.SHARES, owner)  # two at a time could be one too many
    session.execute(delete(Row).where(Row.owner == owner, ~_lasts()))
    if (session.scalar(select(func.count()).where(Row.owner == owner)) or 0) >= MOST:
        problem = FieldError("job", f"would be one link more than {MOST}", "revoke one first")
        raise Refused("There are too many links.", (problem,))
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    ends = func.clock_timestamp() + func.make_interval(0, 0, 0, days)
    row = Row(owner=owner, digest=_digest(token), job_id=job_id, index=index, expires_at=ends)
    session.add(row)
    session.flush()
    session.refresh(row)
    return Made(_share(row), token)


def find(session: Session, token: str) -> Share:
    """Return what a token leads to. Raises NotFound, also when it has ended or was revoked."""
    row = session.scalar(select(Row).where(Row.digest == _digest(token), _lasts()))
    if row is None:
        raise NotFound("This link has ended, or there never was one.")
    return _share(row)


def revoke(session: Session, owner: str, share_id: int) -> None:
    """End a link at once. Raises NotFound."""
    gone = delete(Row).where(Row.id == share_id, Row.owner == owner).returning(Row.id)
    if session.scalar(gone) is None:
        raise NotFound(f"There is no link {share_id}.")


def _lasts() -> ColumnElement[bool]:
    return Row.expires_at > text("clock_timestamp()")


def _digest(token: str) -> str:
    return sha256(token.encode(errors="surrogateescape")).hexdigest()


def _share(row: Row) -> Share:
    return Share(row.id, row.owner, row.job_id, row.index, row.created_at, row.expires_at)
