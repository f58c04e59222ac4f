"""Wiping: all that an owner has on the farm goes, job by job, so that it can be broken off anywhere and begun again.

Keys go first, so that nothing new comes. Pictures that remain where the storage is away, and uploads, are objects that
no row names: the chores find them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from shared.accounts import audit, keys
from shared.accounts.audit import Action
from shared.accounts.principal import Principal
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
from shared.quantities import counted
from shared.queue import transitions

log = structlog.get_logger(__name__)

BATCH: Final = 50  # jobs that one call deletes
SECONDS: Final = 10.0  # after which a call begins with no further job: clients wait for 30
KNOWN: Final = timedelta(seconds=1)  # for which a process may still let in whose key is revoked
_THEIRS: Final = (BrowserSession, DoorOptions, OwnerLimit, Preset, Upload, UsageAttempt, UsageDay, WebhookEndpoint)
"""Rows that go once there is no job any more; share links go with their jobs, messages with their webhooks."""


@dataclass(frozen=True)
class Wiped:
    """What one call has wiped of an owner, and how much is left for further ones."""

    owner: str
    keys: int  # that opened the farm
    jobs: int
    left: int  # jobs; at least 1 as long as others may come


def wipe(
    sessions: Sessions, storage: Storage, by: Principal, owner: str, clock: Callable[[], float] = time.monotonic
) -> Wiped:
    """Revoke an owner's keys and delete jobs and pictures, at most `BATCH`; with no job left, everything else too.

    A call that finds anything writes that down first. It begins with no further job after `SECONDS`. Within `KNOWN`
    of a key's end something is left in any case.

    Images that run are cancelled; their workers hear of it with the next heartbeat. Raises Unavailable.
    """
    until, jobs = clock() + SECONDS, 0
    revoked, found = transact(sessions, partial(_begin, by=by, owner=owner))
    for job_id in found:
        if clock() > until:
            break
        transact(sessions, partial(_delete, owner=owner, job_id=job_id))
        try:
            storage.delete(job_prefix(job_id))
        except StorageError as error:
            log.warning("pictures of a deleted job remain", job=job_id, prefix=job_prefix(job_id), reason=str(error))
        jobs += 1
    left = transact(sessions, partial(_forget, owner=owner))
    return Wiped(owner, revoked, jobs, left)


def _begin(session: Session, by: Principal, owner: str) -> tuple[int, list[int]]:
    """Revoke an owner's keys, also those that are just being made; return how many, and the oldest jobs.

    Jobs that others wait for stand before these. Index: ix_jobs_owner_state_id.
    """
    keys.lock(session)
    standing = update(ApiKey).where(ApiKey.owner == owner, ApiKey.revoked_at.is_(None))
    revoked = session.scalars(standing.values(revoked_at=func.clock_timestamp()).returning(ApiKey.id)).all()
    jobs = session.scalars(select(Job.id).where(Job.owner == owner).order_by(Job.id).limit(BATCH)).all()
    others = (session.scalar(select(table.owner).where(table.owner == owner).limit(1)) for table in _THEIRS)
    if revoked or jobs or any(others):
        found = f"{counted(len(revoked), 'key')}, {counted(len(jobs), 'job')}"
        audit.note(session, by, Action.OWNER_WIPED, "everything", whose=owner, detail=found)
    return len(revoked), list(jobs)


def _delete(session: Session, owner: str, job_id: int) -> None:
    whose = Scope(owner)
    with suppress(NotFound):  # somebody has deleted it meanwhile
        with suppress(Conflict):  # it has ended
            transitions.cancel(session, whose, job_id, reason="everything of its owner is deleted")
        transitions.delete(session, whose, job_id)


def _forget(session: Session, owner: str) -> int:
    """Delete what is not a job if there is none any more; return how many jobs there are, or may still come."""
    left = session.scalars(select(func.count()).select_from(Job).where(Job.owner == owner)).one()
    if not left:
        for table in _THEIRS:
            session.execute(delete(table).where(table.owner == owner))
    latest = func.clock_timestamp() - KNOWN
    is_known = session.scalar(select(ApiKey.id).where(ApiKey.owner == owner, ApiKey.revoked_at > latest).limit(1))
    return left if is_known is None else max(left, 1)
