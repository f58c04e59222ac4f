"""The audit log: who did what with the farm, written in the transaction of the deed and kept for a year.

A trigger refuses every change of a line, and its deletion within the year (revision 0041). Deeds of owners with their
own jobs and pictures are not in it; those of others with them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import or_, select, text
from sqlalchemy.orm import Session

from shared.accounts.principal import Principal
from shared.db.storable import storable
from shared.db.tables import AuditLine

_BATCH: Final = 1000
_LONGEST: Final = 500  # characters of a detail
CUT: Final = "…"
"""What a detail ends with that was too long."""


class Action(StrEnum):
    """A deed that is written down."""

    KEY_MADE = "key.made"
    KEY_REVOKED = "key.revoked"
    LIMITS_SET = "limits.set"
    LIMITS_CLEARED = "limits.cleared"
    OWNER_WIPED = "owner.wiped"
    SESSION_BEGUN = "session.begun"
    SIGN_IN_REFUSED = "sign-in.refused"
    WORKER_DRAINED = "worker.drained"
    WORKER_RESUMED = "worker.resumed"
    WEBHOOK_MADE = "webhook.made"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_ROTATED = "webhook.rotated"
    WEBHOOK_DELETED = "webhook.deleted"
    SHARE_MADE = "share.made"
    SHARE_REVOKED = "share.revoked"
    # With what is another owner's.
    JOB_APPROVED = "job.approved"
    JOB_CANCELLED = "job.cancelled"
    JOB_CHANGED = "job.changed"
    JOB_DELETED = "job.deleted"
    JOB_HELD = "job.held"
    JOB_RELEASED = "job.released"
    JOB_RETRIED = "job.retried"
    PICTURES_DELETED = "pictures.deleted"
    PICTURES_MARKED = "pictures.marked"
    PICTURES_RESTORED = "pictures.restored"


@dataclass(frozen=True)
class Line:
    """One deed."""

    id: int
    at: datetime
    owner: str  # who did it
    role: str
    action: str  # Action; another version may know more
    object: str  # such as `job 17`
    whose: str | None  # the owner of the object, if it has one
    detail: str


def note(  # noqa: PLR0913 - the columns of a line
    session: Session, who: Principal, action: Action, what: str, *, whose: str | None = None, detail: str = ""
) -> None:
    """Write down that somebody does something; it counts if the transaction of `session` does."""
    session.add(
        AuditLine(
            owner=who.owner,
            role=who.role.value,
            action=action.value,
            object=what,
            whose=whose,
            detail=_fitting(detail),
        )
    )
    session.flush()


def note_refused_sign_in(session: Session, address: str, reason: str) -> None:
    """Write down that somebody at an address, whose name is not known for sure, was not signed in."""
    told, action = _fitting(reason), Action.SIGN_IN_REFUSED.value
    session.add(AuditLine(owner=address, role="", action=action, object="session", detail=told))
    session.flush()


def _fitting(detail: str) -> str:
    """Return a detail as a line can hold it."""
    whole = storable(detail)
    return whole if len(whole) <= _LONGEST else whole[: _LONGEST - len(CUT)] + CUT


def note_job(session: Session, who: Principal, action: Action, whose: str, job_id: int) -> None:
    """Write down what somebody does with a job of another owner; one's own jobs are not written down."""
    if whose != who.owner:
        note(session, who, action, f"job {job_id}", whose=whose)


def listed(
    session: Session, owner: str | None = None, action: str | None = None, before: int | None = None, limit: int = 50
) -> list[Line]:
    """Return lines, the latest first: those about deeds of an owner or with something of theirs, or all."""
    query = select(AuditLine).order_by(AuditLine.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(or_(AuditLine.owner == owner, AuditLine.whose == owner))
    if action is not None:
        query = query.where(AuditLine.action == action)
    if before is not None:
        query = query.where(AuditLine.id < before)
    return [_line(row) for row in session.scalars(query)]


# The oldest by their ids, from the primary key.
_FORGET: Final = text("""
    WITH old AS (
        SELECT id FROM audit_log ORDER BY id LIMIT :batch
    ),
    forgotten AS (
        DELETE FROM audit_log
        USING old
        WHERE audit_log.id = old.id
          AND at < clock_timestamp() - interval '1 year'
        RETURNING audit_log.id
    )
    SELECT count(*) FROM forgotten
""")


def forget(session: Session) -> int:
    """Delete some lines that are older than a year; return how many, 0 if none is left."""
    return int(session.execute(_FORGET, {"batch": _BATCH}).scalar_one())


def _line(row: AuditLine) -> Line:
    return Line(row.id, row.at, row.owner, row.role, row.action, row.object, row.whose, row.detail)
