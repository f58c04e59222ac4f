"""From latents to pixels and back, as pipelines ask for it: pictures of any size, and never one that is none.

What a VAE needs of memory grows with the picture. One above 1024 x 1024 pixels therefore goes through it in overlapping
tiles, each a request of its own, so that others' steps come in between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from torch import Tensor

from shared.errors import Spoilt
from worker.engine.noise import CELL
from worker.engine.requests import Asks, ToLatent, ToPixels, Work
from worker.engine.seamless import along, wrapped
from worker.engine.tiles import cut, joined, tiles
from worker.engine.weights import Weights

LARGEST_CELLS: Final = 128 * 128  # of a latent that goes through the VAE as a whole: 1024 x 1024 pixels
TILE_SIDE: Final = 96  # cells: 768 pixels
OVERLAP: Final = 16  # cells, about as far as a VAE sees

_BLACK: Final = -1 + 1 / 255  # a value below it becomes byte 0
_UNET_FAILED: Final = (
    "the U-Net's numbers are not finite: this checkpoint overflows in this precision (FARM_PRECISION: float32 and "
    "bfloat16 hold more than float16), or its weights are damaged"
)
_VAE_FAILED: Final = "the VAE's numbers are not finite, in float32 as well: its weights are damaged"
_ALL_BLACK: Final = "the picture came out black, every value exactly 0: the checkpoint or its VAE is damaged"


class _Way(NamedTuple):
    """One of the VAE's two directions: its request, and how long a latent cell is before and after it."""

    request: type[ToPixels | ToLatent]
    before: int
    after: int


_DECODE: Final = _Way(ToPixels, 1, CELL)
_ENCODE: Final = _Way(ToLatent, CELL, 1)


def decoded(weights: Weights, latent: Tensor) -> Asks[Tensor]:
    """Return the pixels [3, h, w] of a latent [4, h/8, w/8], finite, about -1..1.

    Raises Spoilt that says which network failed, and where the picture is black to the last value: a dark one
    never is.
    """
    return (yield from _sound(_DECODE, weights, latent, _flaw_of_pixels))


def encoded(weights: Weights, pixels: Tensor) -> Asks[Tensor]:
    """Return the latent [4, h/8, w/8] of pixels [3, h, w] in -1..1, finite. Raises Spoilt."""
    return (yield from _sound(_ENCODE, weights, pixels, _flaw_of_latent))


def _sound(way: _Way, weights: Weights, given: Tensor, flaw: Callable[[Tensor, Tensor], str | None]) -> Asks[Tensor]:
    """What `given` becomes: once more, in float32, where the VAE's own precision gives no numbers."""
    made: Tensor = yield from _through(way, weights, given, is_precise=False)
    found = yield Work(partial(flaw, given, made))
    if found == _VAE_FAILED and not weights.has_precise_vae:
        made = yield from _through(way, weights, given, is_precise=True)
        found = yield Work(partial(flaw, given, made))
    if found:
        raise Spoilt(found)
    return made


def _flaw_of_pixels(latent: Tensor, pixels: Tensor) -> str | None:
    """Read from the card, so it waits for it: not for the engine's thread."""
    if not latent.isfinite().all():
        return _UNET_FAILED
    if not pixels.isfinite().all():
        return _VAE_FAILED
    return _ALL_BLACK if (pixels < _BLACK).all() else None


def _flaw_of_latent(_: Tensor, latent: Tensor) -> str | None:
    return None if latent.isfinite().all() else _VAE_FAILED


def _through(way: _Way, weights: Weights, given: Tensor, *, is_precise: bool) -> Asks[Tensor]:
    height, width = (side // way.before for side in given.shape[1:])
    if height * width <= LARGEST_CELLS:
        made: Tensor = yield way.request(weights, given, is_precise)
        return made
    wrap = along(weights.tiling, (min(OVERLAP, height), min(OVERLAP, width)))
    whole = wrapped(given, (wrap[0] * way.before, wrap[1] * way.before))
    plain = weights.tiled("none")  # a tile's edges are not the picture's
    at = tiles(height + 2 * wrap[0], width + 2 * wrap[1], TILE_SIDE, OVERLAP)
    pieces = []
    for tile in at:
        piece = yield way.request(plain, cut(whole, tile, way.before), is_precise)
        pieces.append(piece)
    made = yield Work(partial(joined, pieces, at, OVERLAP, way.after, wrap))
    return made
