"""Uploads: the pictures that renders start from, each stored once under the SHA-256 of its bytes.

An owner sees their own alone. One that no job has started from for a week is swept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.database import Sessions, transact
from shared.intake import Picture
from shared.storage import Storage, upload_key
from shared.tables import NOW, JobUpload, Upload

_KEPT: Final = timedelta(days=7)
_LOCKS: Final = 0x57E9FA24  # the advisory locks of uploads; PostgreSQL has room for one more number beside it

_LOCK = text("SELECT pg_advisory_xact_lock(:locks, hashtext(:sha256))")


def keep(sessions: Sessions, storage: Storage, owner: str, picture: Picture) -> None:
    """Store a picture as `owner`'s upload; the same again changes nothing. Raises StorageError, Unavailable."""
    key = upload_key(picture.sha256)
    storage.put(key, picture.png)
    transact(sessions, lambda session: _record(session, owner, picture))
    if not storage.exists(key):  # it was swept as nobody's just before it was recorded
        storage.put(key, picture.png)


def is_kept(session: Session, owner: str, sha256: str) -> bool:
    """True if `owner` has uploaded this picture; it is then kept for another week at least."""
    used = update(Upload).where(Upload.owner == owner, Upload.sha256 == sha256).values(used_at=NOW)
    return session.scalar(used.returning(Upload.sha256)) is not None


def use(session: Session, job_id: int, pictures: Iterable[str]) -> None:
    """Note that a job starts from these pictures: they stay as long as it does."""
    rows = [{"job_id": job_id, "sha256": sha256} for sha256 in sorted(set(pictures))]
    if rows:
        session.execute(insert(JobUpload).values(rows))


def sweep(sessions: Sessions, storage: Storage) -> int:
    """Forget the uploads that nobody needs, delete their pictures and return how many.

    Goes by what is stored, so that what an interrupted sweep or upload left behind is found as well. Raises
    StorageError, Unavailable.
    """
    transact(sessions, _forget)
    swept = 0
    for stored in storage.uploads():
        for sha256 in transact(sessions, lambda session, stored=stored: _unknown(session, stored)):  # type: ignore[misc]
            swept += transact(sessions, lambda session, sha256=sha256: _delete(session, storage, sha256))  # type: ignore[misc]
    return swept


def _record(session: Session, owner: str, picture: Picture) -> None:
    session.execute(_LOCK, {"locks": _LOCKS, "sha256": picture.sha256})
    columns = {"owner": owner, "sha256": picture.sha256, "width": picture.width, "height": picture.height}
    fresh = insert(Upload).values(columns | {"bytes": len(picture.png)})
    session.execute(
        fresh.on_conflict_do_update(index_elements=[Upload.owner, Upload.sha256], set_={Upload.used_at: NOW})
    )


def _forget(session: Session) -> None:
    in_use = select(JobUpload.job_id).where(JobUpload.sha256 == Upload.sha256).exists()
    session.execute(delete(Upload).where(Upload.used_at < func.now() - _KEPT, ~in_use))


def _unknown(session: Session, stored: Sequence[str]) -> list[str]:
    """Return which of `stored` neither an upload nor a job names."""
    known = {
        *session.scalars(select(Upload.sha256).where(Upload.sha256.in_(stored))),
        *session.scalars(select(JobUpload.sha256).where(JobUpload.sha256.in_(stored))),
    }
    return [sha256 for sha256 in stored if sha256 not in known]


def _delete(session: Session, storage: Storage, sha256: str) -> int:
    """Delete a picture that is nobody's still, while nobody can record it; return 1 if it was deleted."""
    session.execute(_LOCK, {"locks": _LOCKS, "sha256": sha256})
    if not _unknown(session, [sha256]):
        return 0
    storage.delete(upload_key(sha256))
    return 1
