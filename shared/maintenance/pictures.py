"""Chores of the gallery: finished images are listed as pictures, and the files of deleted pictures are removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, transact
from shared.media.storage import Storage, StoredObject
from shared.pictures import reading
from shared.pictures.queries import KEPT

_MOST_ROUNDS: Final = 20  # in a row: the caller has other work as well
_BATCH: Final = 100
_LEEWAY_SECONDS: Final = 60.0  # behind the last moment at which a picture can be restored


class _ToRemove(NamedTuple):
    image_id: int
    job_id: int
    place: int  # its index
    attempt: int


# Index: ix_pictures_to_remove.
_TO_REMOVE = text("""
    SELECT image_id, job_id, index, attempt
    FROM pictures
    WHERE deleted_at < clock_timestamp() - make_interval(secs => :seconds)
      AND removed_at IS NULL
    ORDER BY deleted_at
    LIMIT :batch
""")
_REMOVED = text("""
    UPDATE pictures
    SET removed_at = clock_timestamp(),
        words = '{}',
        adapters = '{}',
        tags = '{}'
    WHERE image_id = ANY(:ids)
      AND deleted_at IS NOT NULL
""")


def list_pictures(sessions: Sessions) -> int:
    """List finished images of before, and read what pictures are found by; return how many were read.

    Any number of processes may run it at a time; an interrupted run has done a part. Raises Unavailable.
    """
    read = 0
    for _ in range(_MOST_ROUNDS):
        some = transact(sessions, reading.read)
        read += some
        if some < reading.BATCH and not transact(sessions, reading.list_older):
            break
    return read


def remove_deleted(sessions: Sessions, storage: Storage) -> int:
    """Delete the files of pictures that can no longer be restored; return of how many.

    Raises StorageError, Unavailable.

    Only objects of the attempts that were committed are deleted, and no other attempt is ever made of a finished image:
    nothing of anybody else's can be hit. What these objects are does not matter: a newer version may know more kinds.
    An interrupted run has deleted files of pictures whose rows it has not marked; the next one does.
    """
    removed = 0
    while some := transact(sessions, _to_remove):
        for stored in _objects(storage, some):
            storage.discard(stored)
        ids = [row.image_id for row in some]
        transact(sessions, partial(_mark_removed, ids=ids))
        removed += len(ids)
    return removed


def _objects(storage: Storage, rows: Iterable[_ToRemove]) -> Iterator[StoredObject]:
    """Yield the objects of these attempts; each job is listed once, for all of its pictures."""
    attempts = {(row.job_id, row.place, row.attempt) for row in rows}
    for job_id in sorted({job_id for job_id, _, _ in attempts}):
        yield from (one for one in storage.attempts_of(job_id) if (one.job_id, one.index, one.attempt) in attempts)


def _to_remove(session: Session) -> list[_ToRemove]:
    seconds = KEPT.total_seconds() + _LEEWAY_SECONDS
    return [_ToRemove(*row) for row in session.execute(_TO_REMOVE, {"seconds": seconds, "batch": _BATCH})]


def _mark_removed(session: Session, ids: list[int]) -> None:
    session.execute(_REMOVED, {"ids": ids})
