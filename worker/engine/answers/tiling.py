"""Pictures without seams: convolutions that wrap around to the other side of the picture instead of padding with 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from shared.params.fields import Tiling
from worker.engine.images.tiles import along, wrapped
from worker.engine.loading.batch_invariant import InvariantConv


@contextmanager
def seamless(network: nn.Module, tiling: Tiling) -> Iterator[None]:
    """Within the block, the convolutions of `network` wrap around along `tiling`; afterwards they are as before.

    For one thread at a time: the engine's.
    """
    convolutions = [] if tiling == "none" else [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    for convolution in convolutions:
        convolution._conv_forward = partial(_around, convolution, tiling)  # type: ignore[method-assign]  # noqa: SLF001 - torch's own seam between a convolution and its padding
    try:
        yield
    finally:
        for convolution in convolutions:
            del convolution._conv_forward  # noqa: SLF001 - makes the method of the class visible again


def _around(convolution: nn.Conv2d, tiling: Tiling, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve `x` [rows, channels, h, w], wrapped along `tiling` and padded with zeros along the other axis."""
    rows, columns = (int(side) for side in convolution.padding)
    around = along(tiling, (rows, columns))
    zeros = (rows - around[0], columns - around[1])
    x = wrapped(x, around)
    if isinstance(convolution, InvariantConv):
        return convolution.convolved(x, weight, bias, zeros)
    return functional.conv2d(x, weight, bias, convolution.stride, zeros, convolution.dilation, convolution.groups)
