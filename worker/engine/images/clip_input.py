"""Pictures as CLIP's image encoders read them, bit for bit as transformers' `CLIPImageProcessor` prepares them."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from shared.media.arrays import OPAQUE, Pixels, cut

_MEAN: Final = (
    0.48145466,
    0.4578275,
    0.40821073,
)  # of red, green and blue in 0..1, over the pictures CLIP learned from
_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)


_LONGEST: Final = 16  # times its other side, of a picture of which all is resized


def clip_input(picture: Pixels, side: int) -> Tensor:
    """Return the middle of a picture [h, w, 3] at this size, normalised [3, side, side], float32.

    The same comes of the whole picture and of its `middle`.
    """
    scaled = (middle(picture, side) / np.float64(OPAQUE)).astype(np.float32)
    normal = (scaled - np.array(_MEAN, np.float32)) / np.array(_DEVIATION, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))


def middle(picture: Pixels, side: int) -> Pixels:
    """Return the middle of a picture [h, w, 3] whose shorter side becomes `side`, in memory of its own.

    Of a very narrow picture only the middle is resized: all of it would become very large.
    """
    height, width = picture.shape[:2]
    most = _LONGEST * min(height, width)
    picture = cut(picture, min(width, most), min(height, most))
    height, width = picture.shape[:2]
    size = (side * width // min(height, width), side * height // min(height, width))
    whole = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    return cut(np.asarray(whole), side, side).copy()
