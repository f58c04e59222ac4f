"""Which workers have died lately, and of what: one in a crash loop has no row for most of the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.queue.history import Event


@dataclass(frozen=True)
class Ended:
    """The burials of one worker in the last hour."""

    name: str
    times: int
    reason: str  # of the latest, for people
    at: datetime  # of the latest


_ENDED = text("""
    SELECT worker AS name,
           count(*) AS times,
           (array_agg(coalesce(detail, '') ORDER BY id DESC))[1] AS reason,
           max(at) AS at
    FROM history
    -- Bounded, however long the history is. Index: the primary key.
    WHERE id > (SELECT max(id) FROM history) - :latest
      AND event = :event
      AND worker IS NOT NULL
      AND at > clock_timestamp() - interval '1 hour'
    GROUP BY worker
    ORDER BY at DESC
    LIMIT 20
""")
_LATEST = 20_000


def lately(session: Session) -> list[Ended]:
    """Return the workers that were buried in the last hour, the latest first."""
    rows = session.execute(_ENDED, {"latest": _LATEST, "event": Event.BURIED}).mappings()
    return [Ended(**row) for row in rows]
