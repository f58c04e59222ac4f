"""`scaled_dot_product_attention` on the pretended card: a CPU build cannot dispatch it for CUDA."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.support.card_kernels import HALVES, Card, aten, blocks, check_devices, check_formats, inside
from tests.support.card_ledger import LEDGER, Kernel
from tests.support.card_streams import current_stream

PLAIN = torch.nn.functional.scaled_dot_product_attention


def choice(query: Tensor, mask: Tensor | None) -> str:
    """Return the kernel that torch 2.13 takes on an H100 with cuDNN 9.15 or later, of those that are switched on."""
    width, is_half, backends = query.shape[-1], query.dtype in HALVES, torch.backends.cuda
    if is_half and width % 8 == 0 and width <= 128 and backends.cudnn_sdp_enabled():
        return "cudnn"
    if is_half and mask is None and width <= 256 and backends.flash_sdp_enabled():
        return "flash"
    is_aligned = width % (8 if is_half else 4) == 0
    return "efficient" if is_aligned and backends.mem_efficient_sdp_enabled() else "math"


def attention(  # noqa: PLR0917 - torch's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002
) -> Tensor:
    """Attention: checked, chosen and written down; computed in float32 and rounded once."""
    tensors = [one for one in (query, key, value, attn_mask) if one is not None]
    if not any(isinstance(one, Card) for one in tensors):
        return PLAIN(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    check_devices(aten.bmm.default, tensors)
    check_formats(aten.bmm.default, tensors[:3] if attn_mask is None or attn_mask.dtype == torch.bool else tensors)
    if LEDGER.on_kernel:
        LEDGER.on_kernel("scaled_dot_product_attention", tensors)
    with torch._C._AutoDispatchBelowAutograd():
        result = Card(values(tensors, dropout_p, is_causal=is_causal, scale=scale))
    write_down(choice(query, attn_mask), tensors, result)
    return result


def values(tensors: list[Tensor], dropout_p: float, *, is_causal: bool, scale: float | None) -> Tensor:
    """What attention gives, laid out as flash and cuDNN give it if there are no values."""
    query, _, value = tensors[:3]
    if LEDGER.inner == "meta":
        rows, heads, length, _ = query.shape
        flat = torch.empty(rows, length, heads, value.shape[-1], dtype=query.dtype, device="meta")
        return flat.transpose(1, 2)
    up = [one.float() if one.dtype in HALVES else one for one in map(inside, tensors)]
    mask = up[3] if len(up) > 3 else None
    return PLAIN(up[0], up[1], up[2], mask, dropout_p, is_causal=is_causal, scale=scale).to(query.dtype)


def write_down(way: str, tensors: list[Tensor], result: Tensor) -> None:
    """Note the kernel and what it costs."""
    query, key = tensors[:2]
    rows, heads, length, width = query.shape
    LEDGER.attention[way, (*query.shape, key.shape[-2]), len(tensors) > 3] += 1
    stream = current_stream().stream_id
    LEDGER.begin(stream, blocks(tensors), blocks([result]))
    flops = 4.0 * rows * heads * length * key.shape[-2] * width
    moved = sum(one.nbytes for one in (*tensors[:3], result))
    LEDGER.count(stream, Kernel(f"attention: {way}", f"attention{width}", flops, moved))
