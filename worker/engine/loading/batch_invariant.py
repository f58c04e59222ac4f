"""Layers on a CPU that give a row the same bits in a batch of any size, also alone.

Depending on the number of rows, PyTorch computes a convolution by oneDNN or by MKL, and MKL multiplies matrices in
another order for each number. So all products here are oneDNN's, which takes one picture at a time. Whether its kernels
round alike for any number of rows is not taken for granted: `row_limits` measures it. Norms and activations are split
among threads by the size of the whole call and round at the borders. Norms are measured too. Activations go row by row,
because only one value in ten thousand differs there, which a measurement can miss. Attention and layer norms compute
each row by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.engine.row_limits import Layer, RowLimits

_HAS_ONEDNN: Final = torch.backends.mkldnn.is_available()
_onednn_product: Final = torch.ops.mkldnn._linear_pointwise if _HAS_ONEDNN else None  # noqa: SLF001 - its only name


class InvariantLinear(nn.Linear):
    """A matrix product of rows [rows, ..., in_features]."""

    layer: Layer

    def forward(self, rows: Tensor) -> Tensor:
        """Return the product [rows, ..., out_features]."""
        return self.layer.answer(lambda part: product(part, self.weight, self.bias), rows)


class InvariantConv(nn.Conv2d):
    """A convolution of pictures [rows, channels, h, w]."""

    row_limits: RowLimits
    layers: dict[tuple[int, int], Layer]  # by the rows and columns of zeros around a picture

    def _conv_forward(self, pictures: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, columns = (int(side) for side in self.padding)
        return self.convolved(pictures, weight, bias, (rows, columns))

    def convolved(self, pictures: Tensor, weight: Tensor, bias: Tensor | None, zeros: tuple[int, int]) -> Tensor:
        """Return `pictures` convolved, padded with so many rows and columns of zeros.

        A `weight` other than the layer's own belongs to an adapter, which always convolves one picture at a time.
        """
        kernel = partial(convolution, self, weight, bias, zeros)
        if weight is not self.weight:
            return kernel(pictures)
        if zeros not in self.layers:
            sizes = *self.kernel_size, *self.stride, *zeros, *self.dilation, self.groups
            text = f"convolution {self.in_channels}>{self.out_channels} {','.join(map(str, sizes))}"
            self.layers[zeros] = self.row_limits.layer(text, 2)
        return self.layers[zeros].answer(kernel, pictures)


class InvariantGroupNorm(nn.GroupNorm):
    """A norm of groups of channels of rows [rows, channels, ...]."""

    layer: Layer

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows normalised."""
        return self.layer.answer(super().forward, rows)


class InvariantSiLU(nn.SiLU):
    """An activation of rows [rows, ...]."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows activated."""
        return _row_by_row(functional.silu, rows)


def make_batch_invariant(network: nn.Module, row_limits: RowLimits) -> None:
    """Make the layers of the U-Net `network` batch invariant, within the limits that `row_limits` measures."""
    from diffusers.models.activations import GEGLU  # noqa: PLC0415 - takes seconds, and is loaded with any U-Net
    from diffusers.models.controlnets.controlnet_union import QuickGELU  # noqa: PLC0415 - as above

    for layer in network.modules():
        match layer:
            case nn.Linear():
                text = f"linear {layer.in_features}>{layer.out_features}"
                _become(InvariantLinear, layer, layer=row_limits.layer(text, 2))
            case nn.Conv2d():
                _become(InvariantConv, layer, row_limits=row_limits, layers={})
            case nn.GroupNorm():
                _become(InvariantGroupNorm, layer, layer=row_limits.layer(f"group norm {layer.num_groups}", 1))
            case nn.SiLU():
                _become(InvariantSiLU, layer)
            case GEGLU():
                vars(layer)["gelu"] = partial(_row_by_row, functional.gelu)
            case QuickGELU():  # of a union of control nets
                vars(layer)["forward"] = partial(_row_by_row, layer.forward)


def _become(kind: type[nn.Module], layer: nn.Module, /, **attributes: object) -> None:
    """Change the class of `layer` to `kind`, and give it more attributes."""
    layer.__class__ = kind
    vars(layer).update(attributes)


def _row_by_row(activation: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    return torch.cat([activation(row) for row in rows.split(1)])


def product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the matrix product of `rows` [..., in] and `weight` [out, in]."""
    if _onednn_product is None or rows.dtype != torch.float32:
        return functional.linear(rows, weight, bias)
    answer: Tensor = _onednn_product(rows, weight, bias, "none", [], "")
    return answer


def convolution(
    layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, zeros: tuple[int, int], pictures: Tensor
) -> Tensor:
    """Return `pictures` convolved as `layer` does, padded with so many rows and columns of zeros."""
    if not _HAS_ONEDNN or pictures.dtype != torch.float32:
        return functional.conv2d(pictures, weight, bias, layer.stride, zeros, layer.dilation, layer.groups)
    # A convolution that multiplies each point by itself is a matrix product, which is twice as fast.
    is_product = layer.kernel_size == layer.stride == (1, 1) and zeros == (0, 0) and layer.groups == 1
    if is_product and pictures.is_contiguous(memory_format=torch.channels_last):
        return product(pictures.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    return torch.mkldnn_convolution(pictures, weight, bias, zeros, layer.stride, layer.dilation, layer.groups)
