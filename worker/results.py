"""What a finished image leaves in the storage."""

from __future__ import annotations

import time
from typing import Final

import structlog

from shared.errors import StorageError
from shared.infotext.writer import text
from shared.queue.claim import Claim
from shared.storage import Kind, Storage, key
from shared.version import version
from worker import film, pictures
from worker.pictures import Frame, Rendered

log = structlog.get_logger(__name__)

_PAUSES_SECONDS: Final = (0.5, 2.0)  # before the second and the third try: shorter than rendering it all again


def store(storage: Storage, claim: Claim, rendered: Rendered) -> int:
    """Store picture, thumbnail and film under this attempt's keys; return the picture's bytes. Raises StorageError."""
    params = claim.params
    picture = pictures.picture(rendered.pixels, text(params, version=version()), params.format)
    _put(storage, _key(claim, "picture"), picture)
    _put(storage, _key(claim, "thumbnail"), pictures.thumbnail(rendered.pixels))
    if params.film:
        _store_film(storage, claim, _frames(rendered))
    return len(picture)


def _frames(rendered: Rendered) -> tuple[Frame, ...]:
    """Return the frames of the film: the steps that were kept, of all passes, and the picture."""
    return (*rendered.frames, Frame(rendered.steps, rendered.steps, rendered.pixels))


def _store_film(storage: Storage, claim: Claim, frames: tuple[Frame, ...]) -> None:
    """Store the film as well as can be: the picture never waits or fails for it."""
    try:
        storage.put(_key(claim, "film"), film.animation(frames))
        storage.put(_key(claim, "strip"), film.strip(frames))
    except (StorageError, OSError, ValueError) as error:  # the last two: Pillow's
        log.warning("film not stored", job=claim.job_id, image=claim.image_id, reason=str(error))


def _put(storage: Storage, key: str, data: bytes) -> None:
    """Store `data`; a storage that stumbles is tried again while the picture is at hand."""
    for pause in _PAUSES_SECONDS:
        try:
            return storage.put(key, data)
        except StorageError:
            time.sleep(pause)
    return storage.put(key, data)


def _key(claim: Claim, kind: Kind) -> str:
    return key(claim.job_id, claim.index, claim.attempt, kind, claim.params.format)
