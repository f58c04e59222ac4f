"""A database that was restored from a backup is older than the pictures: its next job ids have been used already."""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, transact
from shared.media.storage import Storage

log = structlog.get_logger(__name__)

# Ids are drawn while this runs: what it sets must be ahead of those, too.
_MARGIN: Final = 1000

# A sequence that has drawn nothing yet has its first number as last value.
_AHEAD = text("""
    SELECT setval('jobs_id_seq', :last + :margin)
    FROM jobs_id_seq
    WHERE last_value - CASE WHEN is_called THEN 0 ELSE 1 END < :last
""")


def keep_ids_ahead(sessions: Sessions, storage: Storage) -> int | None:
    """Have no job get an id under which the storage holds anything; return the id that all new ones are above.

    None: the ids are ahead already, as always but after a restore. Raises StorageAway, Unavailable.
    """
    last = storage.last_job()
    moved = transact(sessions, lambda session: _move(session, last)) if last else None
    if moved is not None:
        log.warning("the database is older than the pictures: job ids go on behind theirs", last=last, next=moved + 1)
    return moved


def _move(session: Session, last: int) -> int | None:
    moved: int | None = session.scalar(_AHEAD, {"last": last, "margin": _MARGIN})
    return moved
