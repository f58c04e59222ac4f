"""The pictures that a render starts from, out of the storage: source and mask as the engine takes them."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from PIL import Image

from shared.errors import NotFound, RenderError
from shared.media.storage import Storage, upload_key
from shared.params.render import RenderParams
from worker.engine.images import arrays
from worker.engine.images.arrays import Mask, Pixels


class Inputs(NamedTuple):
    """Source [h, w, 3], flattened on white, and mask [h, w], 255 where it is painted again; None if there is none."""

    source: Pixels | None = None
    mask: Mask | None = None


def pictures(storage: Storage, params: RenderParams) -> Inputs:
    """Return the pictures that resolved `params` name.

    Raises RenderError where one is gone or damaged, StorageError where the storage is away.
    """
    start = params.img2img
    if start is None:
        return Inputs()
    source = arrays.flattened(_opened(storage, start.picture, "source picture"))
    if start.mask is None:
        return Inputs(source)
    return Inputs(source, arrays.mask(_opened(storage, start.mask.picture, "mask")))


def _opened(storage: Storage, sha256: str, what: str) -> Image.Image:
    try:
        picture = Image.open(BytesIO(storage.get(upload_key(sha256))), formats=("PNG",))
        picture.load()
    except NotFound:
        raise RenderError(f"the {what} {sha256[:10]} is no longer stored: upload it and submit again") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise RenderError(f"the {what} {sha256[:10]} is damaged in the storage: {error}") from error
    return picture
