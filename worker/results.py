"""What a finished image leaves in the storage."""

from __future__ import annotations

from importlib.metadata import version

from shared import infotext
from shared.queue.claim import Claim
from shared.storage import Storage, key
from worker import pictures
from worker.pictures import Pixels


def store(storage: Storage, claim: Claim, pixels: Pixels) -> int:
    """Store picture and thumbnail under this attempt's keys; return the picture's size in bytes. Raises StorageError."""
    picture = pictures.png(pixels, _parameters(claim))
    storage.put(_key(claim, "picture"), picture)
    storage.put(_key(claim, "thumbnail"), pictures.thumbnail(pixels))
    return len(picture)
