"""The noise of a picture, which depends only on its seed: drawn on the host, so it is the same on every card."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor

from shared.params.fields import NoiseSource
from shared.params.groups import Noise
from worker.engine.architectures.base import LatentSpace
from worker.engine.sampling.philox import normals

Shape = tuple[int, ...]
Draw = Callable[[Shape], Tensor]
"""A shape -> unit noise, float32, new at each call."""

_ALIKE: Final = 0.9995  # mean cosine above which a path on the sphere has no direction
_SMALLEST_SINE: Final = 1e-6
_SEEDS: Final = 2**64


class ImageNoise:
    """All noise of one picture: `first` once, then `next` for each step that adds some. Not for two threads at once.

    Draws are made one by one, so that their number does not change the first ones.
    """

    def __init__(self, seed: int, noise: Noise, latent: LatentSpace, width: int, height: int) -> None:
        self._seed = seed
        self._noise = noise
        self._cell = latent.cell
        self._shape = (latent.channels, height // latent.cell, width // latent.cell)
        self._draw = _source(noise.source, seed)

    def first(self) -> Tensor:
        """Return the noise that the picture starts from [channels, height/cell, width/cell].

        With a variation strength it is mixed with the variation seed's; with another size, its middle is the first
        noise of a picture of that size. Later draws come from the seed moved by `eta_seed_delta`.
        """
        noise, whole = self._noise, self._draw(self._shape)
        start = whole
        if noise.resize_width and noise.resize_height:
            start = self._first_of(self._seed)
        if noise.variation_strength:
            start = slerp(noise.variation_strength, start, self._first_of(noise.variation_seed))
        if noise.eta_seed_delta:
            self._draw = _source(noise.source, self._seed + noise.eta_seed_delta)
        return centred(start, whole)

    def next(self) -> Tensor:
        """Return the noise of one step [channels, height/cell, width/cell]."""
        return self._draw(self._shape)

    def draws(self, number: int) -> Tensor:
        """Return the first noise and the next ones, `number` in all [number, channels, height/cell, width/cell]."""
        return torch.stack([self.first(), *(self.next() for _ in range(number - 1))])

    def _first_of(self, seed: int) -> Tensor:
        """Return the first noise of a picture of `seed`, at the size of `resize_width` and `resize_height` if set."""
        channels, *sides = self._shape
        if self._noise.resize_width and self._noise.resize_height:
            sides = [self._noise.resize_height // self._cell, self._noise.resize_width // self._cell]
        return _source(self._noise.source, seed)((channels, *sides))


def slerp(share: float, low: Tensor, high: Tensor) -> Tensor:
    """Return the point at `share` of the way from `low` to `high` on the sphere [channels, h, w], column by column.

    If both point the same way the ends are swapped, as in pictures of other programs; it hardly shows there.
    """
    cosine = (low / low.norm(dim=1, keepdim=True) * (high / high.norm(dim=1, keepdim=True))).sum(dim=1, keepdim=True)
    if float(cosine.mean()) > _ALIKE:
        return low * share + high * (1 - share)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    on_sphere = ((1 - share) * angle).sin() / sine * low + (share * angle).sin() / sine * high
    return torch.where(sine > _SMALLEST_SINE, on_sphere, low * (1 - share) + high * share)


def centred(block: Tensor, ground: Tensor) -> Tensor:
    """Return `ground` [channels, h, w] with the middle of `block` in its middle, as much of it as fits."""
    if block is ground:
        return ground
    height, width = (min(sides) for sides in zip(block.shape[1:], ground.shape[1:], strict=True))
    result = ground.clone()
    _middle(result, height, width).copy_(_middle(block, height, width))
    return result


def _middle(block: Tensor, height: int, width: int) -> Tensor:
    """Return a view of the middle of `block`, `height` by `width`."""
    top, left = (block.shape[1] - height) // 2, (block.shape[2] - width) // 2
    return block[:, top : top + height, left : left + width]


def _source(kind: NoiseSource, seed: int) -> Draw:
    """Return a function that draws from `seed`. Of its 64 bits torch's generator takes the low 32."""
    seed %= _SEEDS  # with a delta it may leave their range
    if kind == "NV":
        calls = itertools.count()
        return lambda shape: torch.from_numpy(normals(seed, next(calls), shape))
    return partial(torch.randn, generator=torch.Generator().manual_seed(seed))
