"""The first scan of the models folder: until it has ended, a file that the catalogue lacks may still be found.

Workers scan as soon as they have started.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db import locks

SCANNED: Final = "models"
STARTED: Final = "workers"
"""Names in the table of chores: of the latest complete scan, and of the latest start of a machine's workers."""

_COMING_SECONDS: Final = 120  # in which workers that were started are there; PyTorch takes its time on a busy machine

NAMES: Final = {"started": STARTED, "looked": SCANNED, "coming_seconds": _COMING_SECONDS}

_WORKERS = """workers AS (
        SELECT min(started_at) AS since FROM workers WHERE lease_until > clock_timestamp()
    ),
    coming AS (
        SELECT max(done_at) AS since
        FROM chores
        WHERE name = :started
          AND done_at > clock_timestamp() - make_interval(secs => :coming_seconds)
    )"""

AWAITED_SINCE: Final = f"""
    WITH {_WORKERS}
    SELECT coalesce(workers.since, coming.since)
    FROM workers, coming
    WHERE NOT EXISTS (
        SELECT FROM chores WHERE name = :looked AND done_at >= coalesce(workers.since, coming.since)
    )
"""  # noqa: S608 - a constant
"""What `awaited_since` asks, for statements that ask more; with `NAMES`."""
_ASKED: Final = text(AWAITED_SINCE)

_ARE_COMING = text(f"""
    WITH {_WORKERS}
    SELECT workers.since IS NULL AND coming.since IS NOT NULL FROM workers, coming
""")  # noqa: S608 - a constant


def record_scan(session: Session) -> None:
    """Record that a worker has scanned the whole models folder now."""
    locks.record_done(session, SCANNED)


def record_start(session: Session) -> None:
    """Record that the workers of a machine are being started now."""
    locks.record_done(session, STARTED)


def is_awaited(session: Session) -> bool:
    """True while workers live or are starting, and none has scanned the whole models folder since they began."""
    return awaited_since(session) is not None


def awaited_since(session: Session) -> datetime | None:
    """Return when the workers began that have not scanned the whole models folder yet; None: no scan is awaited."""
    found: datetime | None = session.scalar(_ASKED, NAMES)
    return found


def are_coming(session: Session) -> bool:
    """True while no worker is alive, but some were started a moment ago."""
    return bool(session.scalar(_ARE_COMING, NAMES))
