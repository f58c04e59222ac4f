"""Uploads: the pictures that renders start from, each stored once under the SHA-256 of its bytes.

An owner sees only their own, and has a limit of bytes. Uploads that no job has used for some days are deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.accounts.scope import Scope
from shared.db.sessions import Sessions, transact
from shared.db.tables import NOW, JobUpload, Upload
from shared.errors import FieldError, Refused
from shared.media.decode import Picture
from shared.media.storage import Storage, upload_key
from shared.quantities import data_size
from shared.settings import Limits

# The advisory locks of owners and of pictures, taken in this order; each has room for one more number.
_OWNERS: Final = 0x57E9FA23
_PICTURES: Final = 0x57E9FA24

_LOCK = text("SELECT pg_advisory_xact_lock(:locks, hashtext(:name))")


def keep(sessions: Sessions, storage: Storage, owner: str, pictures: Mapping[str, Picture], limits: Limits) -> None:
    """Store pictures (by the field that each came in) as uploads of `owner`; the same picture again changes nothing.

    Raises Refused, with nothing recorded, that names the fields for which there is no room; StorageError, Unavailable.
    """
    transact(sessions, partial(_check_room, owner=owner, pictures=pictures, limits=limits))  # before anything is stored
    for picture in pictures.values():
        storage.put(upload_key(picture.sha256), picture.png)
    transact(sessions, partial(_record, owner=owner, pictures=pictures, limits=limits))
    for picture in pictures.values():
        if not storage.exists(upload_key(picture.sha256)):  # it was deleted as unused just before it was recorded
            storage.put(upload_key(picture.sha256), picture.png)


def is_kept(session: Session, whose: Scope, sha256: str) -> bool:
    """True if an owner in the scope has uploaded this picture."""
    kept = select(Upload.sha256).where(Upload.sha256 == sha256, whose.covers(Upload.owner)).limit(1)
    return session.scalar(kept) is not None


def size(session: Session, owner: str, sha256: str) -> tuple[int, int] | None:
    """Return width and height of a picture that `owner` has uploaded; None if there is none."""
    found = session.execute(select(Upload.width, Upload.height).where(Upload.owner == owner, Upload.sha256 == sha256))
    row = found.one_or_none()
    return (row.width, row.height) if row else None


def use(session: Session, owner: str, job_id: int, pictures: Collection[str]) -> set[str]:
    """Record that a job starts from these uploads, and return those that `owner` has not.

    They stay as long as the job does, and are kept for `upload_days` more.
    """
    if not pictures:
        return set()
    session.execute(insert(JobUpload).values([{"job_id": job_id, "sha256": sha256} for sha256 in {*pictures}]))
    used = update(Upload).where(Upload.owner == owner, Upload.sha256.in_(pictures)).values(used_at=NOW)
    return {*pictures} - {*session.scalars(used.returning(Upload.sha256))}


def without_room(session: Session, owner: str, pictures: Mapping[str, Picture], limits: Limits) -> Iterator[FieldError]:
    """Yield the fields of those `pictures` for which `owner` has no room; what is kept already takes none."""
    if not pictures:
        return
    hashes = [picture.sha256 for picture in pictures.values()]
    known = set(session.scalars(select(Upload.sha256).where(Upload.owner == owner, Upload.sha256.in_(hashes))))
    taken = int(session.scalar(select(func.coalesce(func.sum(Upload.bytes), 0)).where(Upload.owner == owner)) or 0)
    for field, picture in pictures.items():
        if picture.sha256 in known:
            continue
        if taken + len(picture.png) > limits.max_uploads_bytes_per_owner:
            yield _no_room(field, picture, taken, limits)
            continue
        known.add(picture.sha256)
        taken += len(picture.png)


def delete_unused(sessions: Sessions, storage: Storage, days: int) -> int:
    """Delete the uploads that no job has used for `days`, with their pictures; return how many.

    It follows what is stored, so it also finds what an interrupted run or upload left behind. Raises StorageError,
    Unavailable.
    """
    transact(sessions, partial(_forget, days=days))
    deleted = 0
    for stored in storage.uploads():
        for sha256 in transact(sessions, partial(_unknown, stored=stored)):
            deleted += transact(sessions, partial(_delete, storage=storage, sha256=sha256))
    return deleted


def _record(session: Session, owner: str, pictures: Mapping[str, Picture], limits: Limits) -> None:
    session.execute(_LOCK, {"locks": _OWNERS, "name": owner})  # otherwise two at once would both take the last room
    _check_room(session, owner, pictures, limits)
    for sha256, picture in sorted({picture.sha256: picture for picture in pictures.values()}.items()):
        session.execute(_LOCK, {"locks": _PICTURES, "name": sha256})
        columns = {"owner": owner, "sha256": sha256, "width": picture.width, "height": picture.height}
        fresh = insert(Upload).values(columns | {"bytes": len(picture.png)})
        session.execute(
            fresh.on_conflict_do_update(index_elements=[Upload.owner, Upload.sha256], set_={Upload.used_at: NOW})
        )


def _check_room(session: Session, owner: str, pictures: Mapping[str, Picture], limits: Limits) -> None:
    if problems := tuple(without_room(session, owner, pictures, limits)):
        raise Refused("There is no space for another of your source pictures.", problems)


def _no_room(field: str, picture: Picture, taken: int, limits: Limits) -> FieldError:
    left = data_size(max(0, limits.max_uploads_bytes_per_owner - taken))
    return FieldError(
        field,
        f"takes {data_size(len(picture.png))}; you have {limits.max_uploads_mb_per_owner:,} MB for source"
        f" pictures, of which {left} are left",
        f"a picture that you have uploaded before, or one of at most {left}; for more space delete jobs with source"
        f" pictures: unused pictures are deleted {limits.upload_days} days after their last use",
    )


def _forget(session: Session, days: int) -> None:
    in_use = select(JobUpload.job_id).where(JobUpload.sha256 == Upload.sha256).exists()
    session.execute(delete(Upload).where(Upload.used_at < func.now() - timedelta(days=days), ~in_use))


def _unknown(session: Session, stored: Sequence[str]) -> list[str]:
    """Return those of `stored` that neither an upload nor a job names."""
    known = {
        *session.scalars(select(Upload.sha256).where(Upload.sha256.in_(stored))),
        *session.scalars(select(JobUpload.sha256).where(JobUpload.sha256.in_(stored))),
    }
    return [sha256 for sha256 in stored if sha256 not in known]


def _delete(session: Session, storage: Storage, sha256: str) -> int:
    """Delete a picture unless it was recorded meanwhile, with its lock held; return how many were deleted."""
    session.execute(_LOCK, {"locks": _PICTURES, "name": sha256})
    if not _unknown(session, [sha256]):
        return 0
    storage.delete(upload_key(sha256))
    return 1
