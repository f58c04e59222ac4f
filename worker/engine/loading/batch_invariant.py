"""Layers on a CPU that give a row the same to the last bit, in company or alone.

PyTorch hands a convolution to oneDNN or computes it by MKL, by how many rows there are, and MKL multiplies matrices in
another order for each number of rows. So all products here are oneDNN's, which takes them a picture at a time. That
its kernels round alike for any number of rows is not taken for granted: `row_limits` measures it. Norms and activations
share their work out among threads by the size of the whole call, and round at the borders; they are measured too.
Attention and layer norms compute each row by itself.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engine.row_limits import Layer, RowLimits

_HAS_ONEDNN: Final = torch.backends.mkldnn.is_available()
_multiplied: Final = torch.ops.mkldnn._linear_pointwise if _HAS_ONEDNN else None  # noqa: SLF001 - its only name


class SteadyLinear(nn.Linear):
    """A matrix product of rows [rows, ..., in_features]."""

    layer: Layer

    def forward(self, rows: Tensor) -> Tensor:
        """Return the product [rows, ..., out_features]."""
        return self.layer.answer(self._product, rows)

    def _product(self, rows: Tensor) -> Tensor:
        return product(rows, self.weight, self.bias)


class SteadyConv(nn.Conv2d):
    """A convolution of pictures [rows, channels, h, w]."""

    row_limits: RowLimits
    layers: dict[tuple[int, int], Layer]  # by the zeros around a picture

    def _conv_forward(self, pictures: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, columns = (int(side) for side in self.padding)
        return self.convolved(pictures, weight, bias, (rows, columns))

    def convolved(self, pictures: Tensor, weight: Tensor, bias: Tensor | None, zeros: tuple[int, int]) -> Tensor:
        """Return `pictures` convolved between so many rows and columns of zeros."""
        if zeros not in self.layers:
            self.layers[zeros] = self.row_limits.layer(self._text(zeros), 2)
        return self.layers[zeros].answer(partial(convolution, self, weight, bias, zeros), pictures)

    def _text(self, zeros: tuple[int, int]) -> str:
        sizes = *self.kernel_size, *self.stride, *zeros, *self.dilation, self.groups
        return f"convolution {self.in_channels}>{self.out_channels} {','.join(map(str, sizes))}"


class SteadyGroupNorm(nn.GroupNorm):
    """A norm of groups of channels of rows [rows, channels, ...]."""

    layer: Layer

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows normalised."""
        return self.layer.answer(super().forward, rows)


class SteadySiLU(nn.SiLU):
    """An activation of rows [rows, ...]."""

    layer: Layer

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows activated."""
        return self.layer.answer(functional.silu, rows)


def steady(network: nn.Module, row_limits: RowLimits) -> None:
    """Make the layers of the U-Net `network` steady, by what `row_limits` knows and finds out."""
    from diffusers.models.activations import GEGLU  # noqa: PLC0415 - takes seconds; who has a U-Net has it

    for layer in network.modules():
        match layer:
            case nn.Linear():
                text = f"linear {layer.in_features}>{layer.out_features}"
                _become(SteadyLinear, layer, layer=row_limits.layer(text, 2))
            case nn.Conv2d():
                _become(SteadyConv, layer, row_limits=row_limits, layers={})
            case nn.GroupNorm():
                _become(SteadyGroupNorm, layer, layer=row_limits.layer(f"group norm {layer.num_groups}", 1))
            case nn.SiLU():
                _become(SteadySiLU, layer, layer=row_limits.layer("silu", 1))
            case GEGLU():
                vars(layer)["gelu"] = partial(row_limits.layer("gelu", 1).answer, functional.gelu)


def _become(kind: type[nn.Module], network: nn.Module, /, **facts: object) -> None:
    """Make `network` one of `kind`, with these `facts` beside its own."""
    network.__class__ = kind
    vars(network).update(facts)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the matrix product of `rows` [..., in] and `weight` [out, in]."""
    if _multiplied is None or rows.dtype != torch.float32:
        return functional.linear(rows, weight, bias)
    answer: Tensor = _multiplied(rows, weight, bias, "none", [], "")
    return answer


def convolution(
    layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, zeros: tuple[int, int], pictures: Tensor
) -> Tensor:
    """Return `pictures` convolved as `layer` says, between so many rows and columns of zeros."""
    if not _HAS_ONEDNN or pictures.dtype != torch.float32:
        return functional.conv2d(pictures, weight, bias, layer.stride, zeros, layer.dilation, layer.groups)
    if _is_product(layer, zeros) and pictures.is_contiguous(memory_format=torch.channels_last):
        return product(pictures.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return torch.mkldnn_convolution(pictures, weight, bias, zeros, layer.stride, layer.dilation, layer.groups)


def _is_product(layer: nn.Conv2d, zeros: tuple[int, int]) -> bool:
    """Whether each point is multiplied by itself: twice as fast as a small convolution."""
    return layer.kernel_size == layer.stride == (1, 1) and zeros == (0, 0) and layer.groups == 1
