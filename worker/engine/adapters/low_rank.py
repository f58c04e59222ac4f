"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685; LoCon for convolutions): W x + weight * up (down x)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

LADDER: Final = (4, 8, 16, 32, 64, 128)
"""Ranks are filled up to a step of it with zeros, so that rows with different adapters can share a product."""


class Factors(NamedTuple):
    """What an adapter adds to one layer; `scale` of its file is part of `up`."""

    down: Tensor  # [rank, in], or of a convolution [rank, in, kh, kw]
    up: Tensor  # [out, rank]

    @property
    def rank(self) -> int:
        """A step of the ladder, or above it the rank of the file."""
        return len(self.down)

    @classmethod
    def of(cls, down: Tensor, up: Tensor, scale: float, dtype: torch.dtype, device: torch.device) -> Self:
        """Return the factors of a file: `down` [r, in] or [r, in, kh, kw], `up` [out, r] or [out, r, 1, 1]."""
        up = up.flatten(1).float() * scale
        more = rank_on_ladder(len(down)) - len(down)
        filled = functional.pad(down.float(), (0, 0) * (down.dim() - 1) + (0, more)), functional.pad(up, (0, more))
        return cls(*(tensor.to(device, dtype).contiguous() for tensor in filled))


@dataclass(frozen=True, eq=False)
class LowRank:
    """One adapter file on a card."""

    sha256: str
    name: str  # for people
    architecture: str
    networks: Mapping[str, Mapping[str, Factors]]  # by diffusers' name of the network, then by the layer's path

    def changes(self, network: str) -> bool:
        """Return whether it changes the network of this name."""
        return bool(self.networks.get(network))

    @cached_property
    def bytes(self) -> int:
        """The size of its matrices in memory."""
        every = (tensor for layers in self.networks.values() for factors in layers.values() for tensor in factors)
        return sum(tensor.nbytes for tensor in every)


def rank_on_ladder(rank: int) -> int:
    """Return the rank that a rank is filled up to."""
    return next((step for step in LADDER if step >= rank), rank)
