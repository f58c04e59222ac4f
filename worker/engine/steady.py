"""Layers on a CPU that give a row the same to the last bit, in company or alone.

For few rows of a matrix product, and for many small pictures of a convolution, MKL and oneDNN choose kernels that add
in another order than for others: a millionth, which two dozen steps at strong guidance can make a visible difference
of. So few rows are filled up with zeros to as many as make a choice that no longer changes, and small pictures go in
portions. What has so few rows are the layers of the time step; what is so small, the deepest levels of small pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

FEWEST_ROWS: Final = 32  # of a matrix product; measured: 16 and more are all alike
MOST_PICTURES: Final = 8  # of a convolution over `SMALL` positions or fewer; measured: 2 to 15 are all alike
SMALL: Final = 16


class SteadyLinear(nn.Linear):
    """A matrix product of at least `FEWEST_ROWS` rows."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return the product for `rows` [..., in_features]: [..., out_features]."""
        if rows.numel() >= FEWEST_ROWS * self.in_features:
            return functional.linear(rows, self.weight, self.bias)
        flat = rows.reshape(-1, self.in_features)
        filled = functional.pad(flat, (0, 0, 0, FEWEST_ROWS - len(flat)))
        product = functional.linear(filled, self.weight, self.bias)
        return product[: len(flat)].reshape(*rows.shape[:-1], self.out_features)


class SteadyConv(nn.Conv2d):
    """A convolution of at most `MOST_PICTURES` small pictures at a time."""

    def _conv_forward(self, pictures: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve: Callable[[Tensor, Tensor, Tensor | None], Tensor] = super()._conv_forward
        portions = math.ceil(len(pictures) / MOST_PICTURES)
        if portions == 1 or pictures.shape[-2] * pictures.shape[-1] > SMALL:
            return convolve(pictures, weight, bias)
        return torch.cat([convolve(one, weight, bias) for one in torch.tensor_split(pictures, portions)])


def steady(network: nn.Module) -> None:
    """Make the layers of `network` steady."""
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = SteadyLinear
        elif type(layer) is nn.Conv2d:
            layer.__class__ = SteadyConv
