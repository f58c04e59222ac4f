"""The attention layers of a U-Net, found once: a walk through SDXL's modules takes longer than a small call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn


class Attention(NamedTuple):
    """An attention layer of a U-Net."""

    path: str
    layer: Any  # diffusers' module, with `to_q`, `to_k`, `to_v` and `to_out`


_FOUND: WeakKeyDictionary[nn.Module, Sequence[Attention]] = WeakKeyDictionary()


def attentions(unet: nn.Module) -> Sequence[Attention]:
    """Return the attention layers of a U-Net, in the order of its modules."""
    found = _FOUND.get(unet)
    if found is None:
        found = [Attention(path, layer) for path, layer in unet.named_modules() if hasattr(layer, "to_k")]
        _FOUND[unet] = found
    return found
