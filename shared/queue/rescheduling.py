"""Rescheduling of a job that waits: its pool, its place among its owner's images, its deadline.

Running images go on where they are. All images that have not succeeded get the new scheduling, so that one
that comes back, or is tried again, goes where its job goes now.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts.scope import OWNED, Scope
from shared.errors import Conflict
from shared.params.scheduling import DependsOn, utc_words
from shared.queue import dependencies, holds
from shared.queue.conflicts import refusal
from shared.queue.history import Event


@dataclass(frozen=True)
class Change:
    """What a job's scheduling becomes; None leaves it as it is."""

    pool: str | None = None
    priority: int | None = None
    urgent: bool | None = None
    expires_at: datetime | None = None  # if `sets_deadline`: None takes the deadline away
    sets_deadline: bool = False
    hold: bool | None = None
    after: tuple[int, ...] | None = None  # jobs that it waits for; none of them: it waits no more
    on: DependsOn | None = None

    @property
    def words(self) -> str:
        """`pool large, priority 5`: for the history."""
        deadline = f"deadline {utc_words(self.expires_at)}" if self.expires_at else "no deadline"
        urgent = {None: None, True: "urgent", False: "not urgent"}[self.urgent]
        said = [
            self.pool and f"pool {self.pool}",
            None if self.priority is None else f"priority {self.priority}",
            urgent,
            deadline if self.sets_deadline else None,
            None if self.after is None else f"after {', '.join(map(str, self.after)) or 'no job'}",
        ]
        return ", ".join(filter(None, said))


# Images by id and then the job, as everywhere. A claim that comes first has its image running here, one that comes
# later finds it in its new lane: it looks again at the row that it waited for, and skips one that is locked.
_IMAGES: Final = text(f"""
    WITH taken AS (
        SELECT id
        FROM images
        WHERE job_id = :job_id
          AND {OWNED}
          AND state <> 'succeeded'
        ORDER BY id
        FOR UPDATE
    ),
    moved AS (
        UPDATE images
        SET pool = coalesce(CAST(:pool AS text), pool),
            priority = coalesce(CAST(:priority AS bigint), priority),
            urgent = coalesce(CAST(:urgent AS boolean), urgent),
            expires_at = CASE WHEN :sets_deadline THEN CAST(:expires_at AS timestamptz) ELSE expires_at END
        FROM taken
        WHERE images.id = taken.id
        RETURNING state
    )
    SELECT count(*) FROM moved WHERE state IN ('held', 'queued')
""")  # noqa: S608 - a constant
_JOB: Final = text(f"""
    WITH changed AS (
        UPDATE jobs
        SET pool = coalesce(CAST(:pool AS text), pool),
            priority = coalesce(CAST(:priority AS bigint), priority),
            urgent = coalesce(CAST(:urgent AS boolean), urgent),
            expires_at = CASE WHEN :sets_deadline THEN CAST(:expires_at AS timestamptz) ELSE expires_at END
        WHERE id = :job_id
          AND {OWNED}
        RETURNING id
    )
    INSERT INTO history (event, job_id, detail)
    SELECT :event, id, CAST(:words AS text) FROM changed WHERE CAST(:words AS text) <> ''
""")  # noqa: S608 - a constant


def change(session: Session, whose: Scope, job_id: int, wanted: Change, *, by: str) -> int:
    """Reschedule a job; return how many of its images wait, and so start as it says now.

    Tickets go out after the commit, for each image that is queued. Raises NotFound, and Conflict if no image waits.
    """
    given = {
        "whose": whose.owner,
        "job_id": job_id,
        "pool": wanted.pool,
        "priority": wanted.priority,
        "urgent": wanted.urgent,
        "expires_at": wanted.expires_at,
        "sets_deadline": wanted.sets_deadline,
    }
    changes_dependencies = wanted.after is not None or wanted.on is not None
    if changes_dependencies:
        dependencies.lock_images(session, whose, job_id)
    images: int = session.execute(_IMAGES, given).scalar_one()
    if not images:
        raise refusal(session, whose, job_id, None, "changed")
    if wanted.hold is not None:
        with suppress(Conflict):  # it is so already
            (holds.hold if wanted.hold else holds.release)(session, whose, job_id, by=by)
    if changes_dependencies:
        dependencies.change(session, job_id, wanted.after, wanted.on)
    session.execute(_JOB, given | {"event": Event.CHANGED, "words": wanted.words})
    return images
