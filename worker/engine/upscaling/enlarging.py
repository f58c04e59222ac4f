"""Pictures through a network over pixels: in tiles that fit the card, and as often as a target size needs.

The memory does not grow with the picture on the card, and on the host only as its bytes do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from shared.errors import Spoilt
from shared.media.arrays import Pixels, enlarged, resized
from worker.engine.devices import Device
from worker.engine.images.tiles import Span
from worker.engine.requests import Apply, Asks, Read, Work
from worker.engine.transfers import fetched, pinned, to_device
from worker.engine.upscaling.architectures import PixelNetwork
from worker.engine.upscaling.canvas import Canvas
from worker.engine.vae import with_room

Size = tuple[int, int]  # width and height, pixels

# In pixels of the picture that a network is given.
SIDES: Final = (192, 96, 48)  # of a tile; the smaller ones if the card has no room
OVERLAP: Final = 8  # over which tiles fade into each other
_WINDOW: Final = 16  # tiles begin at multiples of it, so that windows of attention lie as in the whole picture
ROUNDS: Final = 3
MOST_PIXELS: Final = 2**27  # of a network's result; a larger one is made of a smaller picture
_FAILED: Final = (
    "the upscaler's numbers are not finite: it overflows in this precision (FARM_PRECISION: float32 and bfloat16 hold "
    "more than float16), or its weights are damaged"
)


def enlarged_by(
    network: PixelNetwork | None, pixels: Pixels, size: Size, device: Device, *, is_nearest: bool = False
) -> Asks[Pixels]:
    """Return `pixels` [h, w, 3] at another size; without a network by Lanczos, or in blocks.

    The network is applied until its result covers the size, three times at most, and Lanczos does the rest. One that
    does not enlarge is applied once.
    """
    for _ in range(ROUNDS if network else 0):
        is_enough = pixels.shape[1] >= size[0] and pixels.shape[0] >= size[1]
        if network is None or (is_enough and network.scale > 1):
            break
        pixels = yield Work(partial(_within, pixels, network.scale))
        pixels = yield from applied(network, pixels, device)
        if network.scale == 1:
            break
    result: Pixels = yield Work(partial(_sized, pixels, size, is_nearest=is_nearest))
    return result


def applied(network: PixelNetwork, pixels: Pixels, device: Device) -> Asks[Pixels]:
    """Return the network's result for `pixels` [h, w, 3], made in overlapping tiles, in small ones for lack of room."""
    *larger, smallest = SIDES
    ways = [partial(_in_tiles, network, pixels, device, side, is_divisible=True) for side in larger]
    return (yield from with_room(*ways, partial(_in_tiles, network, pixels, device, smallest)))


def _in_tiles(
    network: PixelNetwork, pixels: Pixels, device: Device, side: int, *, is_divisible: bool = False
) -> Asks[Pixels]:
    scale, (height, width) = network.scale, pixels.shape[:2]
    columns = _spans(width, side)
    canvas = Canvas(height * scale, width * scale, OVERLAP * scale)
    for rows in _spans(height, side):
        tiles = yield Work(partial(_cut, pixels, rows, columns, device))
        asked = (Apply(network, to_device(tile, device), is_divisible=is_divisible) for tile in tiles)
        pieces = yield tuple(asked)
        yield Read(partial(_laid_down, canvas, _scaled(rows, scale), [_scaled(one, scale) for one in columns], pieces))
    return canvas.pixels


def _spans(length: int, side: int) -> list[Span]:
    """Return spans of `side`, the last one perhaps shorter, that cover `length` and share at least the overlap."""
    step = (side - OVERLAP) // _WINDOW * _WINDOW
    starts = range(0, max(1, length - side + step), step)
    return [(start, min(start + side, length)) for start in starts]


def _cut(pixels: Pixels, rows: Span, columns: Sequence[Span], device: Device) -> list[Tensor]:
    """Return the tiles of one band [3, h, w] as values in 0..1."""
    band = pixels[slice(*rows)]
    return [pinned(_to_unit(band[:, slice(*one)]), device) for one in columns]


def _laid_down(canvas: Canvas, rows: Span, columns: Sequence[Span], pieces: Sequence[Tensor]) -> None:
    tiles = [fetched(piece) for piece in pieces]
    if not all(tile.isfinite().all() for tile in tiles):
        raise Spoilt(_FAILED)
    canvas.add(rows, columns, tiles)


def _to_unit(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)


def _scaled(span: Span, scale: int) -> Span:
    return span[0] * scale, span[1] * scale


def _within(pixels: Pixels, scale: int) -> Pixels:
    """Return `pixels`, smaller if the result of a network would have more than the most pixels."""
    height, width = pixels.shape[:2]
    share = math.sqrt(MOST_PIXELS / (height * width * scale**2))
    return pixels if share >= 1 else resized(pixels, max(1, int(width * share)), max(1, int(height * share)))


def _sized(pixels: Pixels, size: Size, *, is_nearest: bool) -> Pixels:
    return pixels if pixels.shape[1::-1] == size else enlarged(pixels, *size, is_nearest=is_nearest)
