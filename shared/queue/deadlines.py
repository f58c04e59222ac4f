"""Deadlines: images that have not started by theirs are cancelled, and held images whose time has come are queued.

Any number of processes may call this at once. Each takes images that no other has locked (SKIP LOCKED), so none waits
for an image; jobs follow by id, last. Times are the database's own. A claim checks the deadline itself, so no image
starts late because this ran late.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import RowMapping, TextClause
from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS
from shared.db.states import ImageState
from shared.queue import queries
from shared.queue.history import Event, with_history
from shared.queue.holds import release_statement
from shared.queue.job_end import take_down

MOST: Final = 500  # images that one round moves for each of its reasons: it holds their locks


@dataclass(frozen=True)
class Due:
    """What one round moved. Events and tickets go out after the commit."""

    cancelled: int
    queued: Mapping[str, int]  # pool -> images that can be claimed now: as many tickets
    jobs: Mapping[int, ImageState]  # those whose images moved, and what they do now
    is_all: bool  # False: there may be more


# Indexes: ix_images_expires_at; the rows in it that are due are cancelled here, or were started in time and are few.
_EXPIRE = with_history(
    """
    taken AS (
        SELECT id
        FROM images
        WHERE state IN ('held', 'queued')
          AND expires_at <= statement_timestamp()
          -- An image that started in time and came back may start again, as in the claim.
          AND (started_at IS NULL OR started_at < queued_at)
        ORDER BY expires_at
        LIMIT :most
        FOR UPDATE SKIP LOCKED
    ),
    moved AS (
        UPDATE images
        SET state = 'cancelled',
            ended_at = clock_timestamp(),
            reason = 'not started by its deadline, '
                || to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC',
            held_until = NULL,
            held_behind = NULL
        FROM taken
        WHERE images.id = taken.id
        RETURNING images.id, job_id, attempt, worker, pool
    )
    """,
    "SELECT job_id, pool FROM moved",
)

# Index: ix_images_held, from its first entry.
_AFTER_TIME = """
    SELECT id
    FROM images
    WHERE state = 'held'
      AND held_until <= statement_timestamp()
    ORDER BY held_until
    LIMIT :most
    FOR UPDATE SKIP LOCKED
"""

# A loose index scan: one probe a job that something is held behind, however much is held. Index: ix_images_held.
_AFTER_JOB = """
    SELECT images.id
    FROM images
    WHERE state = 'held'
      AND held_until IS NULL
      AND held_behind = ANY(ARRAY(
          WITH RECURSIVE behind AS (
              (
                  SELECT held_behind AS job_id
                  FROM images
                  WHERE state = 'held'
                    AND held_until IS NULL
                    AND held_behind IS NOT NULL
                  ORDER BY held_until, held_behind
                  LIMIT 1
              )
              UNION ALL
              SELECT next.held_behind
              FROM behind
              CROSS JOIN LATERAL (
                  SELECT held_behind
                  FROM images
                  WHERE state = 'held'
                    AND held_until IS NULL
                    AND held_behind > behind.job_id
                  ORDER BY held_until, held_behind
                  LIMIT 1
              ) AS next
          )
          SELECT job_id
          FROM behind
          -- Ended, however that was, or deleted.
          WHERE (SELECT state FROM jobs WHERE jobs.id = behind.job_id) IS DISTINCT FROM 'open'
      ))
    ORDER BY held_until, held_behind
    LIMIT :most
    FOR UPDATE OF images SKIP LOCKED
"""


_PLACES: Final = "SELECT job_id, pool FROM moved"
_RELEASES: Final = {
    "its time has come": release_statement(_AFTER_TIME, _PLACES),
    "what it was held behind has ended": release_statement(_AFTER_JOB, _PLACES),
}


def move_due(session: Session) -> Due:
    """Cancel images that missed their deadline and queue those held until now, at most `MOST` for each reason."""
    cancelled = _moved(session, _EXPIRE, Event.CANCELLED, "not started by its deadline")
    parts = [_moved(session, move, Event.RELEASED, why) for why, move in _RELEASES.items()]
    queued = [row for part in parts for row in part]
    take_down(session, [row["job_id"] for row in cancelled], ImageState.CANCELLED)
    return Due(
        cancelled=len(cancelled),
        queued=Counter(row["pool"] for row in queued),
        jobs=queries.states(session, EVERYBODYS, {row["job_id"] for row in [*cancelled, *queued]}),
        is_all=all(len(part) < MOST for part in (cancelled, *parts)),
    )


def _moved(session: Session, move: TextClause, event: Event, why: str) -> list[RowMapping]:
    return list(session.execute(move, {"most": MOST, "event": event, "detail": why}).mappings())
