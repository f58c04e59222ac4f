"""Masks on the host: blurred, filled in, laid over. Bytes [h, w]: 255 is repainted, 0 stays."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.nn import functional

from shared.media.arrays import OPAQUE, Mask, Pixels

_FILL: Final = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))  # radius, number of layers


def blurred(mask: Mask, sigma: float) -> Mask:
    """Return `mask` under a Gaussian of deviation `sigma`, cut off at two and a half deviations; mirrored at edges."""
    reach = int(2.5 * sigma + 0.5)
    if reach == 0:
        return mask
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    values = torch.from_numpy(np.pad(mask.astype(np.float32), reach, mode="reflect"))[None, None]
    values = functional.conv2d(values, taps[None, None, :, None])
    values = functional.conv2d(values, taps[None, None, None, :])
    return values[0, 0].round().clamp(0, OPAQUE).byte().numpy()


def filled(pixels: Pixels, mask: Mask) -> Pixels:
    """Return `pixels` with the masked part painted over by the colours around it, from far to near."""
    known = Image.fromarray(np.dstack([pixels, OPAQUE - mask]), "RGBA")
    result = Image.new("RGBA", known.size)
    for radius, times in _FILL:
        spread = known.convert("RGBa").filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(spread)
    return np.asarray(result.convert("RGB"))


def laid_over(picture: Pixels, original: Pixels, mask: Mask) -> Pixels:
    """Return `original` if nothing is masked and `picture` where all is, mixed in between."""
    share = mask[..., None].astype(np.float32) / OPAQUE
    return np.rint(picture * share + original * (1 - share)).astype(np.uint8)


def cells(mask: Mask, side: int) -> torch.Tensor:
    """Return the share of each latent cell, of `side` pixels, that is masked [1, h/side, w/side], float32 in 0..1."""
    height, width = mask.shape
    blocks = mask.reshape(height // side, side, width // side, side)
    return torch.from_numpy(blocks.mean(axis=(1, 3), dtype=np.float32) / OPAQUE)[None]
