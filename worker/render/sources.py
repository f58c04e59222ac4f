"""The pictures of a render, read from the storage: what it starts from, and what it follows.

An image may follow twenty large pictures, and would fill the memory if it held them whole. So it holds what its passes
and its image encoders read of them: a few hundred pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Final, NamedTuple

from PIL import Image

from shared.errors import NotFound, RenderError
from shared.media import arrays
from shared.media.arrays import Mask, Pixels
from shared.media.storage import Storage, upload_key
from shared.params.controlnet import ControlUnit
from shared.params.geometry import hires_size
from shared.params.ip_adapter import IPAdapterUnit
from shared.params.render import RenderParams
from worker.engine.images.clip_input import middle

ReadFollowed = Callable[[int], tuple[Pixels, ...]]
"""Reads the pictures that an IP-Adapter follows for an encoder of this side. Raises RenderError, StorageError."""

_FOLLOWED: Final = "picture to follow"


class Sources(NamedTuple):
    """Source [h, w, 3], flattened on white unless it is enlarged by itself, and mask [h, w], 255 where it is painted
    again; None if there is none.
    """

    source: Pixels | None = None
    mask: Mask | None = None
    controls: tuple[tuple[ControlUnit, tuple[Pixels, ...]], ...] = ()  # each control net's options and pictures
    ip_adapters: tuple[tuple[IPAdapterUnit, ReadFollowed], ...] = ()  # each adapter's options and pictures
    alpha: Mask | None = None  # of a picture that is enlarged by itself; None: opaque


def pictures(storage: Storage, params: RenderParams) -> Sources:
    """Return the pictures that resolved `params` name.

    Those that IP-Adapters follow are read later, by functions that raise the same. Raises RenderError if a picture is
    gone or damaged, StorageError if the storage is away.
    """
    if params.upscale:
        pixels, alpha = arrays.split(_opened(storage, params.upscale.pictures[0].picture, "picture"))
        return Sources(pixels, alpha=alpha)
    start, source, mask = params.img2img, None, None
    if start is not None:
        source = arrays.flattened(_opened(storage, start.picture, "source picture"))
    if start is not None and start.mask is not None:
        mask = arrays.mask(_opened(storage, start.mask.picture, "mask"))
    controls = tuple((unit, _control_pictures(storage, params, unit)) for unit in params.controlnet)
    followed = (sha256 for unit in params.ip_adapters if unit.weight for sha256 in unit.pictures)
    for sha256 in dict.fromkeys(followed):
        if not storage.exists(upload_key(sha256)):  # before models are loaded for it
            raise _gone(sha256, _FOLLOWED)
    ip_adapters = tuple((unit, partial(_followed, storage, unit)) for unit in params.ip_adapters)
    return Sources(source, mask, controls, ip_adapters)


def _control_pictures(storage: Storage, params: RenderParams, unit: ControlUnit) -> tuple[Pixels, ...]:
    """Return the picture that a control net follows at the size of each pass, as the passes would make it.

    As it is if only the masked part is rendered: that takes a part of it. None: the net follows the picture that the
    render starts from, or has no effect.
    """
    if unit.picture is None or not unit.weight:
        return ()
    picture, start = arrays.flattened(_opened(storage, unit.picture, "control picture")), params.img2img
    if start and start.mask and start.mask.area == "only masked":
        return (picture,)
    sizes = [(params.width, params.height)]
    if params.hires and not start:
        sizes.append(hires_size(params.width, params.height, params.hires).final)
    return tuple(arrays.resized(picture, *size, unit.resize) for size in sizes)


def _followed(storage: Storage, unit: IPAdapterUnit, side: int) -> tuple[Pixels, ...]:
    """Return what an image encoder of this side reads of the pictures that an IP-Adapter follows; none: it has no
    effect.
    """
    if not unit.weight:
        return ()
    opened = (_opened(storage, sha256, _FOLLOWED) for sha256 in unit.pictures)
    return tuple(middle(arrays.flattened(picture), side) for picture in opened)


def _opened(storage: Storage, sha256: str, role: str) -> Image.Image:
    try:
        picture = Image.open(BytesIO(storage.get(upload_key(sha256))), formats=("PNG",))
        picture.load()
    except NotFound:
        raise _gone(sha256, role) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise RenderError(f"the {role} {sha256[:10]} is damaged in the storage: {error}") from error
    return picture


def _gone(sha256: str, role: str) -> RenderError:
    return RenderError(f"the {role} {sha256[:10]} is no longer stored: upload it and submit again")
