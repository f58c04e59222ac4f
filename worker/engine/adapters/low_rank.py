"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685; LoCon for convolutions): W x + weight * up (down x)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from worker.engine.devices import Device
from worker.engine.loading.upload import placed

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
    def of(cls, down: Tensor, up: Tensor, scale: float) -> Self:
        """Return the factors of a file in float32.

        `down` is [r, in] or [r, in, kh, kw], and `up` [out, r] or [out, r, 1, 1].
        """
        more = rank_on_ladder(len(down)) - len(down)
        up = functional.pad(up.flatten(1).float() * scale, (0, more))
        return cls(functional.pad(down.float(), (0, 0) * (down.dim() - 1) + (0, more)), up)


@dataclass(frozen=True, eq=False)
class LowRank:
    """One adapter file on a card."""

    sha256: str
    name: str  # for people
    architecture: str
    networks: Mapping[str, Mapping[str, Factors]]  # by diffusers' name of the network, then by the layer's path

    @classmethod
    def on(
        cls,
        device: Device,
        dtype: torch.dtype,
        networks: Mapping[str, Mapping[str, Factors]],
        **about: str,
    ) -> Self:
        """Return an adapter with copies of factors in one buffer on the device, which the engine may use from then on.

        On a card the work goes on the current stream. `about` are the other fields.
        """
        factors = {(name, path): each for name, layers in networks.items() for path, each in layers.items()}
        weights = {f"{key} {part}": each[part] for key, each in factors.items() for part in range(2)}
        views = placed(weights, dtype, device)
        there: dict[str, dict[str, Factors]] = {name: {} for name in networks}
        for name, path in factors:
            there[name][path] = Factors(*(views[f"{(name, path)} {part}"] for part in range(2)))
        return cls(networks=there, **about)

    def changes(self, network: str) -> bool:
        """Return whether it changes the network of this name."""
        return bool(self.networks.get(network))

    def transposed(self, network: str, rank: int | None = None) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Return the matrices of each layer as views [in, rank] and [rank, out], of all ranks or the first `rank`.

        A convolution that sees more than a point keeps its kernel [rank, in, kh, kw].
        """
        found = self._transposed.get(network, {})
        if rank is None:
            return found
        return {p: (down[:, :rank] if down.dim() == 2 else down[:rank], up[:rank]) for p, (down, up) in found.items()}

    @cached_property
    def _transposed(self) -> Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]:
        return {
            name: {path: (_matrix(down), up.mT) for path, (down, up) in layers.items()}
            for name, layers in self.networks.items()
        }

    @cached_property
    def bytes(self) -> int:
        """The size of its matrices in memory."""
        every = (tensor for layers in self.networks.values() for factors in layers.values() for tensor in factors)
        return sum(tensor.nbytes for tensor in every)


def _matrix(down: Tensor) -> Tensor:
    return down.flatten(1).mT if down[0, 0].numel() == 1 else down


def rank_on_ladder(rank: int) -> int:
    """Return the rank that a rank is filled up to."""
    return next((step for step in LADDER if step >= rank), rank)
