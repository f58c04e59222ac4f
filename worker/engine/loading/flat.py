"""A network's weights in one buffer: the place of each weight, and the weights as views of the buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

ALIGNED_BYTES: Final = 256
"""Alignment of a weight in its buffer, which suits kernels of every width."""


@dataclass(frozen=True)
class Place:
    """The place of a weight in its buffer, counted in numbers of its format."""

    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The places of one network's weights in a buffer of `bytes`, all in one number format."""

    dtype: torch.dtype
    places: Mapping[str, Place]
    bytes: int

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Layout:
        """Return the layout of weights of these shapes. Equal networks have equal layouts, in any order of a file."""
        places, end = {}, 0
        for name, weight in sorted(weights.items()):
            shape = tuple(weight.shape)
            places[name] = Place(end // dtype.itemsize, shape, _strides(shape))
            end += math.ceil(weight.numel() * dtype.itemsize / ALIGNED_BYTES) * ALIGNED_BYTES
        return cls(dtype, places, end)

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """Return the weights that are views of `buffer`, uint8 [bytes]."""
        numbers = buffer.view(self.dtype)
        return {name: numbers.as_strided(at.shape, at.strides, at.start) for name, at in self.places.items()}


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a weight: channels last for convolutions, which is fastest, else contiguous."""
    order = [0, 2, 3, 1] if len(shape) == 4 else range(len(shape))
    strides, step = dict[int, int](), 1
    for side in reversed(order):
        strides[side] = step
        step *= max(1, shape[side])
    return tuple(strides[side] for side in range(len(shape)))
