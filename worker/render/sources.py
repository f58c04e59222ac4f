"""The source picture and the mask of a render, read from the storage."""

from __future__ import annotations

from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from shared.errors import NotFound, RenderError
from shared.media import arrays
from shared.media.arrays import Mask, Pixels
from shared.media.storage import Storage, upload_key
from shared.params.controlnet import ControlUnit
from shared.params.ip_adapter import IPAdapterUnit
from shared.params.render import RenderParams

_LARGE: Final = 4_000_000  # pixels of a picture to follow that is not made smaller
_ENOUGH: Final = 1024  # pixels of its shorter side if it is


class Sources(NamedTuple):
    """Source [h, w, 3], flattened on white unless it is enlarged by itself, and mask [h, w], 255 where it is painted
    again; None if there is none.
    """

    source: Pixels | None = None
    mask: Mask | None = None
    controls: tuple[tuple[ControlUnit, Pixels | None], ...] = ()  # each control net's options and picture
    ip_adapters: tuple[tuple[IPAdapterUnit, tuple[Pixels, ...]], ...] = ()  # each adapter's options and pictures
    alpha: Mask | None = None  # of a picture that is enlarged by itself; None: opaque


def pictures(storage: Storage, params: RenderParams) -> Sources:
    """Return the pictures that resolved `params` name.

    Raises RenderError if one is gone or damaged, StorageError if the storage is away.
    """
    if params.upscale:
        pixels, alpha = arrays.split(_opened(storage, params.upscale.pictures[0].picture, "picture"))
        return Sources(pixels, alpha=alpha)
    start, source, mask = params.img2img, None, None
    if start is not None:
        source = arrays.flattened(_opened(storage, start.picture, "source picture"))
    if start is not None and start.mask is not None:
        mask = arrays.mask(_opened(storage, start.mask.picture, "mask"))
    controls = tuple((unit, _control_picture(storage, unit)) for unit in params.controlnet)
    ip_adapters = tuple((unit, _followed(storage, unit)) for unit in params.ip_adapters)
    return Sources(source, mask, controls, ip_adapters)


def _control_picture(storage: Storage, unit: ControlUnit) -> Pixels | None:
    """Return the picture that a control net follows; None: the one that the render starts from, or it has no effect."""
    if unit.picture is None or not unit.weight:
        return None
    return arrays.flattened(_opened(storage, unit.picture, "control picture"))


def _followed(storage: Storage, unit: IPAdapterUnit) -> tuple[Pixels, ...]:
    """Return the pictures that an IP-Adapter follows; none: it has no effect."""
    if not unit.weight:
        return ()
    return tuple(_small(arrays.flattened(_opened(storage, sha256, "picture to follow"))) for sha256 in unit.pictures)


def _small(pixels: Pixels) -> Pixels:
    """Return the middle of a large picture, smaller: image encoders read a few hundred pixels of it.

    An image may follow many pictures, and all of them wait in memory.
    """
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    if height * width <= _LARGE:
        return pixels
    middle = arrays.cut(pixels, min(width, 2 * shorter), min(height, 2 * shorter))
    return np.asarray(Image.fromarray(middle).reduce(max(1, shorter // _ENOUGH)))


def _opened(storage: Storage, sha256: str, role: str) -> Image.Image:
    try:
        picture = Image.open(BytesIO(storage.get(upload_key(sha256))), formats=("PNG",))
        picture.load()
    except NotFound:
        raise RenderError(f"the {role} {sha256[:10]} is no longer stored: upload it and submit again") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise RenderError(f"the {role} {sha256[:10]} is damaged in the storage: {error}") from error
    return picture
