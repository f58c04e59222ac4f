"""Colours matched to a source's: by histograms in CIE L*a*b*, whose distances are about those that the eye sees."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.media.arrays import Pixels

Values = NDArray[np.float64]

_TO_XYZ: Final = np.array(  # IEC 61966-2-1: linear sRGB to CIE XYZ under D65
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE: Final = _TO_XYZ.sum(axis=1)
_KNEE: Final = 6 / 29  # CIE 15: below its cube the root is a line


def matched(pixels: Pixels, source: Pixels) -> Pixels:
    """Return `pixels` [h, w, 3] with the colours of `source`: each L*a*b* channel gets its histogram."""
    ours, theirs = to_lab(pixels), to_lab(source)
    channels = [_matched_channel(ours[..., channel], theirs[..., channel]) for channel in range(3)]
    return from_lab(np.stack(channels, axis=-1))


def to_lab(pixels: Pixels) -> Values:
    """Return sRGB bytes [..., 3] as L* in 0..100, a* and b*."""
    share = pixels / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    light = linear @ _TO_XYZ.T / _WHITE
    x, y, z = np.moveaxis(np.where(light > _KNEE**3, np.cbrt(light), light / (3 * _KNEE**2) + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def from_lab(lab: Values) -> Pixels:
    """Return L*a*b* [..., 3] as the nearest sRGB bytes; colours outside of sRGB are clamped."""
    y = (lab[..., 0] + 16) / 116
    roots = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    light = np.where(roots > _KNEE, roots**3, 3 * _KNEE**2 * (roots - 4 / 29))
    linear = (light * _WHITE @ np.linalg.inv(_TO_XYZ).T).clip(0, 1)
    share = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels: Pixels = np.rint(share * 255).astype(np.uint8)
    return pixels


def _matched_channel(values: Values, source: Values) -> Values:
    """Histogram matching: each value becomes the source's at the same share of all (Gonzalez and Woods, 3.3.2)."""
    _, places, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    theirs, their_counts = np.unique(source.ravel(), return_counts=True)
    shares = counts.cumsum() / values.size
    their_shares = their_counts.cumsum() / source.size
    return np.interp(shares, their_shares, theirs)[places].reshape(values.shape)
