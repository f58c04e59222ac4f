"""Pictures as tensors and back, on the host. Slow, so called as `Work`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from shared.media.arrays import Pixels


def to_tensor(pixels: Pixels) -> Tensor:
    """Return bytes [h, w, 3] as float32 in -1..1 [3, h, w]."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1)


def levels(values: Tensor) -> Tensor:
    """Return values in -1..1 as whole numbers in 0..255, still float32; values beyond are clamped."""
    return values.clamp(-1, 1).add_(1).mul_(127.5).round_()
