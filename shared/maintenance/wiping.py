"""Wiping: all that an owner has on the farm goes, job by job, so that it can be broken off anywhere and begun again.

Keys go first, so that nothing new comes. Pictures that remain where the storage is away, and uploads, are objects that
no row names: the chores find them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from shared.accounts.scope import Scope
from shared.db.sessions import Sessions, transact
from shared.db.tables import (
    ApiKey,
    BrowserSession,
    DoorOptions,
    Job,
    OwnerLimit,
    Preset,
    Upload,
    UsageAttempt,
    UsageDay,
    WebhookEndpoint,
)
from shared.errors import Conflict, NotFound, StorageError
from shared.media.storage import Storage, job_prefix
from shared.queue import transitions

log = structlog.get_logger(__name__)

BATCH: Final = 50  # jobs that one call deletes
_THEIRS: Final = (BrowserSession, DoorOptions, OwnerLimit, Preset, Upload, UsageAttempt, UsageDay, WebhookEndpoint)
"""Rows that go once there is no job any more; share links go with their jobs, messages with their webhooks."""


@dataclass(frozen=True)
class Wiped:
    """What one call has wiped of an owner, and how much is left for further ones."""

    owner: str
    keys: int  # that opened the farm
    jobs: int
    left: int  # jobs


def wipe(sessions: Sessions, storage: Storage, owner: str) -> Wiped:
    """Revoke an owner's keys and delete jobs and pictures, at most `BATCH`; with no job left, everything else too.

    Images that run are cancelled; their workers hear of it with the next heartbeat. Raises Unavailable.
    """
    keys = transact(sessions, partial(_revoke, owner=owner))
    jobs = transact(sessions, partial(_jobs, owner=owner))
    for job_id in jobs:
        transact(sessions, partial(_delete, owner=owner, job_id=job_id))
        try:
            storage.delete(job_prefix(job_id))
        except StorageError as error:
            log.warning("pictures of a deleted job remain", job=job_id, prefix=job_prefix(job_id), reason=str(error))
    left = transact(sessions, partial(_forget, owner=owner))
    return Wiped(owner, keys, len(jobs), left)


def _revoke(session: Session, owner: str) -> int:
    standing = update(ApiKey).where(ApiKey.owner == owner, ApiKey.revoked_at.is_(None))
    revoked = session.scalars(standing.values(revoked_at=func.clock_timestamp()).returning(ApiKey.id))
    return len(revoked.all())


def _jobs(session: Session, owner: str) -> list[int]:
    """Return the oldest jobs; those that others wait for stand before these. Index: ix_jobs_owner_state_id."""
    return list(session.scalars(select(Job.id).where(Job.owner == owner).order_by(Job.id).limit(BATCH)))


def _delete(session: Session, owner: str, job_id: int) -> None:
    whose = Scope(owner)
    with suppress(NotFound):  # somebody has deleted it meanwhile
        with suppress(Conflict):  # it has ended
            transitions.cancel(session, whose, job_id, reason="everything of its owner is deleted")
        transitions.delete(session, whose, job_id)


def _forget(session: Session, owner: str) -> int:
    """Delete what is not a job if there is none any more; return how many jobs there are."""
    left = session.scalars(select(func.count()).select_from(Job).where(Job.owner == owner)).one()
    if not left:
        for table in _THEIRS:
            session.execute(delete(table).where(table.owner == owner))
    return left
