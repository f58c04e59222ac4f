"""The number formats of stored weights: those that are read, with a scale or without, and those that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from shared.errors import ModelFileError

_READ: Final = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
)
READABLE: Final = "float32, float16, bfloat16 and float8 (e4m3fn, e5m2) are read"
_WEIGHTS: Final = ("weight", "bias", "positional_embedding", "text_projection")
"""Endings of all names that networks have; other integers are counters and tables that programs leave beside them."""
_SCALES: Final = (".scale_weight", ".weight_scale")  # of a weight stored as float8, two generations of names
_SCALED: Final = (".weight", "", "_weight")  # endings of the weight itself; OpenCLIP's names have the last two
_OF_OTHERS: Final = (".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
"""Endings of what programs that multiply in float8 need beside the weights."""

SAFETENSORS: Final = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16,
    "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64, "C64": torch.complex64,
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "F8_E8M0": torch.float8_e8m0fnu, "F4": torch.float4_e2m1fn_x2,
}  # fmt: skip
"""The names of number formats in safetensors files."""


def plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `weights` as ordinary numbers: those stored with a scale are multiplied by it.

    Raises ModelFileError for a number format that is not read, and for a scale without its weight.
    """
    kept = {name: weight for name, weight in weights.items() if not name.endswith((*_SCALES, *_OF_OTHERS))}
    for name, weight in kept.items():
        if name.endswith(_WEIGHTS):
            require_readable(name, weight)
    unscaled: dict[str, Tensor] = {}
    for scale in (name for name in weights if name.endswith(_SCALES)):
        name = _of_scale(scale, kept)
        if weights[scale].numel() != 1:
            shape = tuple(weights[scale].shape)
            raise ModelFileError(f"its {name} is stored in blocks with {shape} scales: {READABLE}, with one scale each")
        if name in unscaled:
            raise ModelFileError(f"its {name} has two scales, {' and '.join(_SCALES)}: one is read")
        unscaled[name] = _unscaled(kept[name], weights[scale])
    return kept | unscaled


def require_readable(name: str, weight: Tensor) -> None:
    """Raise ModelFileError for a number format that is not read."""
    if weight.dtype not in _READ:
        raise ModelFileError(f"its {name} is stored as {str(weight.dtype).removeprefix('torch.')}: {READABLE}")


def _of_scale(scale: str, weights: Mapping[str, Tensor]) -> str:
    """Return the name of the weight that `scale` belongs to. Raises ModelFileError if it is missing."""
    stem = next(scale.removesuffix(ending) for ending in _SCALES if scale.endswith(ending))
    for name in (stem + ending for ending in _SCALED):
        if name in weights:
            return name
    raise ModelFileError(f"its {scale} is the scale of a weight that is missing: {stem}.weight")


def _unscaled(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the product in half precision, which has more digits than float8, unless it overflows."""
    if weight.is_meta:
        return torch.empty(weight.shape, dtype=torch.float16, device="meta")
    product = weight.float() * scale.float().reshape(())
    half = product.half()
    return half if half.isfinite().all() else product
