"""After a restore from a backup the database is older than the pictures: its next job ids have been used already."""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy import text

from shared.db.sessions import Sessions, transact
from shared.media.storage import Storage

log = structlog.get_logger(__name__)

# Ids are drawn while this runs; the new value must be ahead of those too.
_MARGIN: Final = 1000

# Before its first draw a sequence has its first number as last value.
_AHEAD = text("""
    SELECT setval('jobs_id_seq', :last + :margin)
    FROM jobs_id_seq
    WHERE last_value - CASE WHEN is_called THEN 0 ELSE 1 END < :last
""")


def keep_ids_ahead(sessions: Sessions, storage: Storage) -> int | None:
    """Move the job ids ahead of all ids that the storage knows; return the id above which new ones are.

    None if they are ahead already, as they are except after a restore. Raises StorageAway, Unavailable.
    """
    last = storage.last_job()
    ahead = {"last": last, "margin": _MARGIN}
    moved: int | None = transact(sessions, lambda session: session.scalar(_AHEAD, ahead)) if last else None
    if moved is not None:
        log.warning("the database is older than the pictures: job ids go on behind theirs", last=last, next=moved + 1)
    return moved
