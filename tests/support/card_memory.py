"""Memory of the host that a card fetches from and brings to by itself: pinned, and what is under way."""

from __future__ import annotations

import ctypes
import weakref
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.support.card_ledger import LEDGER

STAGED = 64 * 1024  # bytes of pageable memory that a driver takes along with the command itself


def pinned_empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return pinned memory of this shape. Raises torch.AcceleratorError where the host has no more to pin."""
    count = int(np.prod(shape, dtype=np.int64))
    size = count * dtype.itemsize
    if sum(LEDGER.pinned.values()) + size > LEDGER.pinnable:
        error: Any = torch.AcceleratorError("CUDA error: out of memory (cudaHostAlloc, pretended)")
        error.error_code = 2
        raise error
    memory = np.empty(max(1, size), np.uint8)
    address = memory.ctypes.data
    LEDGER.pinned[address] = size
    weakref.finalize(memory, LEDGER.pinned.pop, address, None)  # storages hold it as long as they live
    return torch.from_numpy(memory)[:size].view(dtype).view(shape)


def is_pinned(tensor: Tensor, _: object = None) -> bool:
    """Return whether a tensor of the host is in pinned memory."""
    return tensor.device.type == "cpu" and tensor.untyped_storage().data_ptr() in LEDGER.pinned


def pin(tensor: Tensor, _: object = None) -> Tensor:
    """Return a tensor of the host in pinned memory."""
    if is_pinned(tensor):
        return tensor
    with torch.inference_mode(mode=tensor.is_inference()):
        return pinned_empty(tuple(tensor.shape), tensor.dtype).copy_(tensor)


def spoil(tensor: Tensor) -> None:
    """Fill a tensor with what nobody takes for a result."""
    kind = tensor.dtype
    tensor.fill_(float("nan") if kind.is_floating_point else True if kind == torch.bool else torch.iinfo(kind).max)


def checksum(tensor: Tensor) -> int:
    """Return a number that tells whether the bytes of a tensor of the host have changed."""
    tensor = tensor.detach()
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    return zlib.crc32((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())) if tensor.nbytes else 0
