"""What a finished image leaves in the storage."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from shared import infotext
from shared.errors import StorageError
from shared.queue.claim import Claim
from shared.storage import Storage, key
from worker import pictures
from worker.pictures import Pixels

_DISTRIBUTION: Final = "stepfarm"
_PAUSES_SECONDS: Final = (0.5, 2.0)  # before the second and the third try: shorter than rendering it all again


def store(storage: Storage, claim: Claim, pixels: Pixels) -> int:
    """Store picture and thumbnail under this attempt's keys; return the picture's bytes. Raises StorageError."""
    picture = pictures.png(pixels, _parameters(claim))
    _put(storage, key(claim.job_id, claim.index, claim.attempt, "picture"), picture)
    _put(storage, key(claim.job_id, claim.index, claim.attempt, "thumbnail"), pictures.thumbnail(pixels))
    return len(picture)


def _put(storage: Storage, key: str, data: bytes) -> None:
    """Store `data`; a storage that stumbles is tried again while the picture is at hand."""
    for pause in _PAUSES_SECONDS:
        try:
            return storage.put(key, data)
        except StorageError:
            time.sleep(pause)
    return storage.put(key, data)


def _parameters(claim: Claim) -> str:
    name = claim.params.checkpoint.rpartition(" [")[0] or claim.params.checkpoint
    return infotext.text(claim.params, checkpoint_name=name, checkpoint_sha256=claim.checkpoint, version=_version())


def _version() -> str:
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "unknown"
