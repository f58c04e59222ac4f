"""Copies between the host and the pretended card, each as blocking as CUDA's."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.support import card_memory
from tests.support.card_kernels import Card, aten, note_kernel, run, waits
from tests.support.card_ledger import LEDGER
from tests.support.card_streams import current_stream


def to_copy(func: Any, args: Any, kwargs: Any) -> Any:
    """`Tensor.to`: a kernel on the card; to the host a copy into new memory, pinned if the host does not wait."""
    device = torch.device(kwargs.get("device") or "cuda")
    if device.type != "cpu":
        return run(func, args, {**kwargs, "device": None if device.type == "cuda" else device})
    source = args[0].to(kwargs["dtype"]) if kwargs.get("dtype") else args[0]  # converted on the card
    layout = torch.empty_like(source.value, memory_format=kwargs.get("memory_format") or torch.preserve_format)
    if kwargs.get("non_blocking"):
        pinned = card_memory.pinned_empty((layout.numel(),), layout.dtype)
        return to_host(pinned.as_strided(layout.shape, layout.stride()), source, is_blocking=False)
    return to_host(torch.empty_strided(layout.shape, layout.stride(), dtype=layout.dtype), source, is_blocking=True)


def copy_(func: Any, args: Any, kwargs: Any) -> Any:
    """`Tensor.copy_`: from anywhere to anywhere."""
    target, source = args[:2]
    is_blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if not isinstance(target, Card):
        return to_host(target, source, is_blocking=is_blocking)
    if not isinstance(source, Card):
        return to_card(target, source, is_blocking=is_blocking)
    with torch._C._AutoDispatchBelowAutograd():
        target.value.copy_(source.value)
    note_kernel(func, [source], [target])
    return target


def to_card(target: Card, source: Tensor, *, is_blocking: bool) -> Card:
    """A copy to the card; what it fetches from pinned memory without waiting must stay as it is until then."""
    stream, is_pinned = current_stream().stream_id, card_memory.is_pinned(source)
    stamp = LEDGER.begin(stream, writes=[target.share.block])
    LEDGER.time.copy(stream, source.nbytes, to_card=True, is_pinned=is_pinned, is_blocking=is_blocking)
    if not target.value.is_meta:
        with torch._C._AutoDispatchBelowAutograd():
            target.value.copy_(source)
    if is_blocking:
        waits("blocking copy to the card")
    elif is_pinned:
        LEDGER.start(stamp, partial(check_unchanged, source, card_memory.checksum(source)))
    elif source.nbytes > card_memory.STAGED:
        LEDGER.note("non_blocking copy of pageable memory: the driver stages it")
    return target


def check_unchanged(source: Tensor, before: int) -> None:
    if card_memory.checksum(source) != before:
        LEDGER.error("pinned memory was written while the card may still fetch from it")


def to_host(target: Tensor, source: Card, *, is_blocking: bool) -> Tensor:
    """A copy to the host; into pinned memory it arrives when it is waited for, and until then nothing is there."""
    stream, is_pinned = current_stream().stream_id, card_memory.is_pinned(target)
    stamp = LEDGER.begin(stream, reads=[source.share.block])
    LEDGER.time.copy(stream, target.nbytes, to_card=False, is_pinned=is_pinned, is_blocking=is_blocking)
    values = torch.zeros(source.shape, dtype=source.dtype) if source.value.is_meta else source.value.clone()
    if is_pinned and not is_blocking:
        card_memory.spoil(target)
        LEDGER.start(stamp, partial(arrive, target, values))
        return target
    waits("copy to the host" if is_blocking else "copy to pageable memory of the host")
    return target.copy_(values)


@torch.inference_mode()
def arrive(target: Tensor, values: Tensor) -> None:
    target.copy_(values)


def read(_: Any, args: Any, __: Any) -> Any:
    """A number read from the card."""
    stream, source = current_stream().stream_id, args[0]
    LEDGER.begin(stream, reads=[source.share.block])
    LEDGER.time.copy(stream, source.nbytes, to_card=False, is_pinned=False, is_blocking=True)
    waits("a number read from the card")
    if source.value.is_meta:
        return True if source.dtype == torch.bool else 0
    return source.value.item()


HANDLERS = {aten._to_copy: to_copy, aten.copy_: copy_, aten._local_scalar_dense: read}
