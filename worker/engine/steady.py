"""Layers on a CPU that give a row the same to the last bit, in company or alone.

For few rows MKL and oneDNN choose kernels that add in another order than for many: a millionth, which two dozen steps
at strong guidance can make a visible difference of. So few rows are filled up with zeros to as many as make a choice
that no longer changes. Which layers have so few: those of the time step, and the deepest of small pictures.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

FEWEST_ROWS: Final = 32  # of a matrix product; measured: 18 and more are all alike
FEWEST_PICTURES: Final = 16  # of a convolution over `SMALL` positions or fewer
SMALL: Final = 16


class SteadyLinear(nn.Linear):
    """A matrix product of at least `FEWEST_ROWS` rows."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return the product for `rows` [..., in_features]: [..., out_features]."""
        flat = rows.reshape(-1, self.in_features)
        product: Tensor = super().forward(_filled(flat, FEWEST_ROWS))
        return product[: len(flat)].reshape(*rows.shape[:-1], self.out_features)


class SteadyConv(nn.Conv2d):
    """A convolution of at least `FEWEST_PICTURES` small pictures."""

    def _conv_forward(self, pictures: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        is_small = pictures.shape[-2] * pictures.shape[-1] <= SMALL
        filled = _filled(pictures, FEWEST_PICTURES) if is_small else pictures
        convolved: Tensor = super()._conv_forward(filled, weight, bias)
        return convolved[: len(pictures)]


def steady(network: nn.Module) -> None:
    """Make the layers of `network` steady."""
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = SteadyLinear
        elif type(layer) is nn.Conv2d:
            layer.__class__ = SteadyConv


def _filled(rows: Tensor, fewest: int) -> Tensor:
    """Return `rows` with zeros behind them, if they are fewer."""
    missing = fewest - len(rows)
    return functional.pad(rows, (0, 0) * (rows.dim() - 1) + (0, missing)) if missing > 0 else rows
