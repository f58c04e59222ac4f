"""From latents to pixels and back, for pipelines: pictures of any size, and an error instead of a spoilt picture.

The memory that a VAE needs grows with the picture. A picture above 1024 x 1024 pixels goes through it in overlapping
tiles, each a request of its own, so that steps of others come in between. So does a picture for which the card has no
room now. The tiles are joined on the card, or on the host if the card has no room for the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

import torch
from torch import Tensor

from shared.errors import Spoilt
from shared.media.arrays import Pixels
from worker.engine.architectures.weights import Weights
from worker.engine.cuda_errors import is_out_of_memory
from worker.engine.devices import Device
from worker.engine.failures import without_tracebacks
from worker.engine.images.tensors import levels
from worker.engine.images.tiles import along, cut, joined, tiles, wrapped
from worker.engine.requests import Asks, Read, ToLatent, ToPixels
from worker.engine.transfers import fetched, pinned, to_device

# All in pixels of the picture.
LARGEST_AREA: Final = 1024 * 1024  # that goes through the VAE as a whole
TILE_SIDE: Final = 768
SMALLER_SIDES: Final = (512, 256)  # if the card has no room for more: 512 take a quarter of the memory of 1024
OVERLAP: Final = 128  # about as far as a VAE sees

_UNET_FAILED: Final = (
    "the U-Net's numbers are not finite: this checkpoint overflows in this precision (FARM_PRECISION: float32 and "
    "bfloat16 hold more than float16), or its weights are damaged"
)
_VAE_FAILED: Final = "the VAE's numbers are not finite, in float32 as well: its weights are damaged"
_ALL_BLACK: Final = "the picture came out black, every value exactly 0: the checkpoint or its VAE is damaged"

T = TypeVar("T")
Ask = Callable[[Weights, Tensor], ToPixels | ToLatent]


class _Direction(NamedTuple):
    """One of a VAE's two directions: its request, and the side of a latent cell before and after it."""

    request: type[ToPixels | ToLatent]
    before: int
    after: int

    @classmethod
    def decoding(cls, weights: Weights) -> _Direction:
        return cls(ToPixels, 1, weights.latent.cell)

    @classmethod
    def encoding(cls, weights: Weights) -> _Direction:
        return cls(ToLatent, weights.latent.cell, 1)


class _Parts(NamedTuple):
    """The result of the VAE, in pieces if it came in tiles, and the function that joins them."""

    pieces: Sequence[Tensor]
    join: Callable[[Sequence[Tensor]], Tensor] = itemgetter(0)

    def whole(self) -> Tensor:
        """Return the whole, on the device of the pieces: this takes a few times its size in memory."""
        return self.join(self.pieces)

    def fetched(self) -> _Parts:
        """Return these on the host, by `transfers.fetched`."""
        return self._replace(pieces=[fetched(piece) for piece in self.pieces])


def decoded(weights: Weights, latent: Tensor) -> Asks[Pixels]:
    """Return the picture of a latent [channels, h/cell, w/cell].

    Raises Spoilt that says which network failed. A picture with only zeros failed too: even a dark one has others.
    """
    return (yield from _sound(weights, partial(_decoded, weights, latent)))


def encoded(weights: Weights, pixels: Tensor) -> Asks[Tensor]:
    """Return the latent [channels, h/cell, w/cell] of pixels [3, h, w] in -1..1, finite. Raises Spoilt."""
    return (yield from _sound(weights, partial(_encoded, weights, pixels)))


def _sound(weights: Weights, attempt: Callable[..., Asks[tuple[T, str | None]]]) -> Asks[T]:
    """Return the result of `attempt`, made again in float32 if the VAE's own precision gives no finite numbers."""
    result, flaw = yield from attempt(is_precise=False)
    if flaw == _VAE_FAILED and not weights.has_precise_vae:
        result, flaw = yield from attempt(is_precise=True)
    if flaw:
        raise Spoilt(flaw)
    return result


def _decoded(weights: Weights, latent: Tensor, *, is_precise: bool) -> Asks[tuple[Pixels, str | None]]:
    parts = yield from _through_vae(_Direction.decoding(weights), weights, latent, is_precise=is_precise)
    return (
        yield from with_room(
            lambda: _read(lambda: _seen(latent, parts)),
            lambda: _read(lambda: _seen(fetched(latent), parts.fetched())),
        )
    )


def _encoded(weights: Weights, pixels: Tensor, *, is_precise: bool) -> Asks[tuple[Tensor, str | None]]:
    parts = yield from _through_vae(_Direction.encoding(weights), weights, pixels, is_precise=is_precise)
    latent = yield from with_room(lambda: _joined(parts), lambda: _joined_on_host(parts, weights.device))
    is_finite = yield from with_room(
        lambda: _read(lambda: bool(fetched(latent.isfinite().all()))),
        lambda: _read(lambda: bool(fetched(latent).isfinite().all())),
    )
    return latent, None if is_finite else _VAE_FAILED


def _read(function: Callable[[], T]) -> Asks[T]:
    value: T = yield Read(function)
    return value


def _joined(parts: _Parts) -> Asks[Tensor]:
    """Join on the device: a latent is small."""
    yield from ()
    return parts.whole()


def _joined_on_host(parts: _Parts, device: Device) -> Asks[Tensor]:
    return to_device((yield Read(lambda: pinned(parts.fetched().whole(), device))), device)


def _seen(latent: Tensor, parts: _Parts) -> tuple[Pixels, str | None]:
    """Return a picture and its flaw, if any. One copy brings its bytes and whether latent and pixels are finite."""
    pixels = parts.whole()  # [3, h, w] in -1..1
    height, width = pixels.shape[1:]
    bytes_and_flags = torch.empty(pixels.numel() + 2, dtype=torch.uint8, device=pixels.device)
    bytes_and_flags[:-2].view(height, width, 3).copy_(levels(pixels).permute(1, 2, 0))
    bytes_and_flags[-2] = latent.isfinite().all()
    bytes_and_flags[-1] = pixels.isfinite().all()
    host_bytes = fetched(bytes_and_flags).numpy()
    picture, (is_latent_finite, is_finite) = host_bytes[:-2].reshape(height, width, 3), host_bytes[-2:]
    if not is_latent_finite:
        return picture, _UNET_FAILED
    if not is_finite:
        return picture, _VAE_FAILED
    return picture, None if picture.any() else _ALL_BLACK


def _through_vae(direction: _Direction, weights: Weights, given: Tensor, *, is_precise: bool) -> Asks[_Parts]:
    """Return `given` through the VAE: as a whole, in large tiles, or in smaller ones for lack of room."""
    height, width = (side // direction.before for side in given.shape[1:])
    cell, longest = weights.latent.cell, max(height, width)
    sides = [longest if height * width * cell**2 <= LARGEST_AREA else TILE_SIDE // cell]
    sides += [side // cell for side in SMALLER_SIDES if side // cell < min(sides[0], longest)]
    ask = partial(direction.request, is_precise=is_precise)
    divisible = partial(ask, is_divisible=True)
    larger = [partial(_in_tiles, direction, divisible, weights, given, side) for side in sides[:-1]]
    return (yield from with_room(*larger, partial(_in_tiles, direction, ask, weights, given, sides[-1])))


def with_room(*ways: Callable[[], Asks[T]]) -> Asks[T]:
    """Return the result of the first of several ways for which there is room."""
    for way in ways[:-1]:
        try:
            return (yield from way())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            without_tracebacks(error)  # its frames hold what there was no room for
    return (yield from ways[-1]())


def _in_tiles(direction: _Direction, ask: Ask, weights: Weights, given: Tensor, side: int) -> Asks[_Parts]:
    """Return `given` through the VAE in tiles of at most `side` cells a side, or at once if it is no larger."""
    height, width = (length // direction.before for length in given.shape[1:])
    if max(height, width) <= side:
        made: Tensor = yield ask(weights, given)
        return _Parts([made])
    overlap = OVERLAP // weights.latent.cell
    wrap = along(weights.tiling, (min(overlap, height), min(overlap, width)))
    whole = wrapped(given, (wrap[0] * direction.before, wrap[1] * direction.before))
    plain = weights.tiled("none")  # a tile's edges are not the picture's
    at = tiles(height + 2 * wrap[0], width + 2 * wrap[1], side, overlap)
    pieces = []
    for tile in at:
        piece = yield ask(plain, cut(whole, tile, direction.before))
        pieces.append(piece)
    return _Parts(pieces, partial(joined, at=at, overlap=overlap, scale=direction.after, wrap=wrap))
