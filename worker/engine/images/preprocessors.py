"""Pictures as control nets are given them: what a preprocessor makes, as a tensor."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from shared.media.arrays import OPAQUE, THRESHOLD, Mask, Pixels
from shared.media.preprocessors import prepared
from shared.params.controlnet import ControlUnit

_HIDDEN: Final = -1.0  # where an inpainting net should paint


def hint(pixels: Pixels, mask: Mask | None, unit: ControlUnit) -> Tensor:
    """Return what a control net is shown of `pixels`: float32 in 0..1 [3, h, w], or -1 where `mask` hides a place."""
    shown = torch.from_numpy(prepared(pixels, unit).transpose(2, 0, 1).astype(np.float32) / OPAQUE)
    if unit.preprocessor == "inpaint" and mask is not None:
        shown[:, torch.from_numpy(mask > THRESHOLD)] = _HIDDEN
    return shown
