"""Ownership of the storage: a farm stores nothing on a wrong disk or among another farm's pictures.

The storage carries a marker with the farm's id, and the database remembers that it was made. A farm without a marker
marks an empty storage if it has no pictures, otherwise the storage that holds its latest pictures (they are from before
markers existed). A person decides everything else with `farm storage adopt`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final, get_args

import structlog
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from shared.db.farm import FarmId
from shared.db.sessions import Sessions, transact
from shared.errors import StorageAway, Unavailable
from shared.media.storage import MARKER, Storage, key, upload_key
from shared.params.fields import FileFormat

log = structlog.get_logger(__name__)

_ASKED: Final = "looking whose storage it is"
_ADVICE: Final = "mount the right disk; if this is the right storage nevertheless, run `farm storage adopt`"
_REFUSED_SECONDS: Final = 2.0  # how long a refusal is reused: every slot asks
_LATEST: Final = 20
_FORMATS: Final = frozenset(get_args(FileFormat))  # a newer farm may have others

# Index: the primary key, from its end.
_PICTURES = text("""
    SELECT images.job_id, images.index, images.attempt, images.bytes,
           coalesce(images.changes ->> 'format', jobs.params ->> 'format', 'png') AS form
    FROM images
    JOIN jobs ON jobs.id = images.job_id
    WHERE images.state = 'succeeded'
      -- The files of pictures that their owner has deleted are gone.
      AND NOT EXISTS (SELECT FROM pictures WHERE pictures.image_id = images.id AND pictures.removed_at IS NOT NULL)
    ORDER BY images.id DESC
    LIMIT :latest
""")
_FARM = text("SELECT id, storage_marked_at IS NOT NULL FROM farm")
_RECORD_MARKED = text(
    "UPDATE farm SET storage_marked_at = clock_timestamp() WHERE id = :id AND storage_marked_at IS NULL"
)
_UPLOADS = text("SELECT sha256, bytes FROM uploads ORDER BY used_at DESC LIMIT :latest")


class Ownership:
    """The guard of one farm's storage. Threads may share it."""

    def __init__(self, sessions: Sessions, farm_id: FarmId) -> None:
        self._sessions = sessions
        self._farm_id = farm_id
        self._is_recorded = False  # in the database, that the storage is marked
        self._refusal = ""
        self._refused_until = 0.0  # monotonic

    def __call__(self, storage: Storage, named: str | None, *, marks: bool) -> None:
        """Raise StorageAway unless `named`, the id in the marker, is the farm's, or a marker may safely be made.

        With `marks` the marker is made and recorded in the database; otherwise nothing is written.
        """
        try:
            mine = self._farm_id.value
            if named is None:
                self._look(storage, mine)
                if marks:
                    storage.mark(mine)
                    self._record_marked(mine)
                    log.info("storage marked as this farm's", farm=mine, file=MARKER)
            elif named == mine and marks:
                self._record_marked(mine)
        except (Unavailable, ProgrammingError) as error:  # ProgrammingError: the tables are older than this code
            reason = "the database does not say which farm owns the storage"
            raise StorageAway(_ASKED, reason, is_certain=True) from error
        if named not in {None, mine}:
            detail = f"its file {MARKER} names {named}, this farm is {mine}"
            raise _not_ours("it belongs to another farm", detail)

    def _look(self, storage: Storage, mine: str) -> None:
        """Raise StorageAway if a storage without a marker may be the wrong one."""
        if time.monotonic() < self._refused_until:
            raise _not_ours(self._refusal)
        refusal = self._objection(storage, mine)
        if refusal and storage.marker() != mine:  # unless another process of this farm has made it meanwhile
            self._refusal, self._refused_until = refusal, time.monotonic() + _REFUSED_SECONDS
            raise _not_ours(refusal)

    def _record_marked(self, mine: str) -> None:
        """Record that the storage is marked, or later if the database is away."""
        if not self._is_recorded:
            with suppress(Unavailable, ProgrammingError):
                transact(self._sessions, lambda session: session.execute(_RECORD_MARKED, {"id": mine}))
                self._is_recorded = True

    def _objection(self, storage: Storage, mine: str) -> str | None:
        """Return why a storage without a marker may be the wrong one; None if it is this farm's.

        Raises StorageAway if the database is no longer that of the farm `mine`.
        """
        farm, is_marked, sizes = transact(self._sessions, _state)
        if farm != mine:
            reason = "the database belongs to another farm than at the start of this process"
            raise StorageAway(_ASKED, reason, advice="start this process again", is_certain=True)
        if is_marked:
            return "this farm's marker is missing: its disk may not be mounted"
        if not sizes:
            return None if storage.is_empty() else "it holds pictures that this farm does not know"
        there = [(storage.size(name), size) for name, size in sizes.items()]
        found = [stored == size for stored, size in there if stored is not None]
        if not found:
            return "none of this farm's pictures lie there: its disk may not be mounted"
        return None if 2 * sum(found) > len(found) else "it holds other pictures than this farm's"


def guarded(url: str, sessions: Sessions, farm_id: FarmId) -> Storage:
    """Return the guarded storage of a farm, which is first used later. Raises SettingsError."""
    return Storage(url, Ownership(sessions, farm_id))


def _not_ours(reason: str, detail: str = "") -> StorageAway:
    return StorageAway(_ASKED, reason, detail=f"{reason}: {detail}" if detail else "", advice=_ADVICE, is_certain=True)


def _state(session: Session) -> tuple[str, bool, dict[str, int]]:
    """Return the farm's id, whether it has marked its storage, and its latest pictures."""
    farm, is_marked = session.execute(_FARM).one()
    return farm, is_marked, _latest(session)


def _latest(session: Session) -> dict[str, int]:
    """Return the keys and sizes of the latest pictures, committed and uploaded."""
    limit = {"latest": _LATEST}
    uploads = {upload_key(row.sha256): row.bytes for row in session.execute(_UPLOADS, limit)}
    pictures = session.execute(_PICTURES, limit).all()
    return uploads | {
        key(job_id, index, attempt, "picture", form): size
        for job_id, index, attempt, size, form in pictures
        if form in _FORMATS
    }
