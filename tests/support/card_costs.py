"""What a kernel does, as far as its time depends on it: its kind, its floating point operations, the bytes it moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.card_ledger import Kernel

aten = torch.ops.aten
CONVOLUTIONS = {aten.convolution, aten._convolution}
PRODUCTS = {aten.addmm, aten.mm, aten.bmm, aten.baddbmm, aten.linear}
NORMS = {aten.native_group_norm, aten.native_layer_norm}
COPIES = {aten.clone, aten._to_copy, aten.copy_}
NO_KERNEL = {aten._unsafe_view, aten.empty_like, aten.new_empty, aten.new_empty_strided, aten.detach, aten.alias}


def cost(packet: Any, given: list[Tensor], written: list[Tensor]) -> Kernel:
    """Return what an operation costs as one kernel."""
    size = sum(one.nbytes for one in (*given, *written))
    return Kernel(packet.__name__, kind(packet, given, written), flops(packet, given, written), size)


def kind(packet: Any, given: list[Tensor], written: list[Tensor]) -> str:
    """Return what sort of kernel an operation takes."""
    if packet in CONVOLUTIONS:
        return "conv"
    if packet in PRODUCTS:
        return "gemm"
    if packet in NORMS:
        return "norm"
    if packet in COPIES and given and written and given[0].stride() != written[0].stride():
        return "strided"
    return "pointwise"


def flops(packet: Any, given: list[Tensor], written: list[Tensor]) -> float:
    """Return the floating point operations of a matrix product or convolution; all others are bound by memory."""
    if packet in CONVOLUTIONS:
        return 2.0 * written[0].numel() * given[1].numel() / given[1].shape[0]
    if packet in (aten.addmm, aten.baddbmm):
        return 2.0 * written[0].numel() * given[1].shape[-1]
    if packet in (aten.mm, aten.bmm, aten.linear):
        return 2.0 * written[0].numel() * given[0].shape[-1]
    return 0.0
