"""Pictures as control nets want them: edges, greys, blurs. Plain functions of pixels, which need no weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage

from shared.media.arrays import OPAQUE, Pixels
from shared.params.controlnet import ControlUnit

_SHIFT: Final = 15
_SLOPE: Final = round((2**0.5 - 1) * 2**_SHIFT)  # of 22.5 degrees, up to which an edge counts as upright
Numbers = NDArray[np.int16]


def prepared(pixels: Pixels, unit: ControlUnit) -> Pixels:
    """Return `pixels` as the unit's preprocessor makes them; what a mask hides is still there."""
    return _PREPROCESSORS[unit.preprocessor](pixels, *unit.thresholds)


def canny(pixels: Pixels, low: float, high: float) -> Pixels:
    """Return the edges of `pixels`, white on black (Canny 1986, doi:10.1109/TPAMI.1986.4767851).

    By Sobel's gradient of the colour that changes most, |dx| + |dy|, in units of a channel's 0..255. Edges above `high`
    count, and those above `low` that are connected to one of them.
    """
    low, high = sorted((low, high))
    strength, dx, dy = _gradient(pixels)
    edges = _thinned(strength, dx, dy) & (strength > low)
    labels, count = ndimage.label(edges, structure=np.ones((3, 3), bool))
    is_strong = np.zeros(count + 1, bool)
    is_strong[labels[edges & (strength > high)]] = True
    return _grey(np.where(is_strong[labels], OPAQUE, 0))


def blurred(pixels: Pixels, sigma: float, _: float) -> Pixels:
    """Return `pixels` under a Gaussian of deviation `sigma`."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def coarsened(pixels: Pixels, factor: float, _: float) -> Pixels:
    """Return `pixels` with only the details that are left at a size smaller by `factor`."""
    picture = Image.fromarray(pixels)
    width, height = (max(1, round(side / factor)) for side in picture.size)
    return np.asarray(
        picture.resize((width, height), Image.Resampling.BOX).resize(picture.size, Image.Resampling.BICUBIC)
    )


def _as_given(pixels: Pixels, *_: float) -> Pixels:
    return pixels


def _greyed(pixels: Pixels, *_: float) -> Pixels:
    return _grey(np.asarray(Image.fromarray(pixels).convert("L")))


def _inverted(pixels: Pixels, *_: float) -> Pixels:
    return OPAQUE - pixels


def _split(pixels: Pixels, level: float, _: float) -> Pixels:
    return np.where(_greyed(pixels) > level, OPAQUE, 0).astype(np.uint8)


_PREPROCESSORS: Final[Mapping[str, Callable[[Pixels, float, float], Pixels]]] = {
    "none": _as_given,
    "canny": canny,
    "blur": blurred,
    "tile": coarsened,
    "grey": _greyed,
    "invert": _inverted,
    "inpaint": _as_given,
    "threshold": _split,
}


def _grey(values: NDArray[np.integer]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _gradient(pixels: Pixels) -> tuple[Numbers, Numbers, Numbers]:
    """Return the strength of the gradient, and its parts along the rows and along the columns, each [h, w].

    One colour at a time, because the largest pictures would take gigabytes.
    """
    most = np.zeros((3, *pixels.shape[:2]), np.int16)
    for colour in np.moveaxis(pixels, 2, 0):
        padded = np.pad(colour.astype(np.int16), 1, mode="edge")
        down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        across = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
        dx, dy = down[:, 2:] - down[:, :-2], across[2:] - across[:-2]
        strength = np.abs(dx) + np.abs(dy)
        np.copyto(most, np.stack([strength, dx, dy]), where=strength > most[0])
    return most[0], most[1], most[2]


def _thinned(strength: Numbers, dx: Numbers, dy: Numbers) -> NDArray[np.bool_]:
    """Return where the gradient is the strongest of its neighbours across the edge; of two equal ones, the first."""
    padded = np.pad(strength, 1)

    def beside(down: int, right: int) -> Numbers:
        height, width = strength.shape
        return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]

    steep, flat = np.abs(dy).astype(np.int32), np.abs(dx).astype(np.int32)
    is_upright, is_level = steep << _SHIFT < flat * _SLOPE, flat << _SHIFT < steep * _SLOPE
    is_falling = (dx < 0) != (dy < 0)
    cases = [is_upright, is_level, is_falling]
    before = np.select(cases, [beside(0, -1), beside(-1, 0), beside(-1, 1)], beside(-1, -1))
    behind = np.select(cases, [beside(0, 1), beside(1, 0), beside(1, -1)], beside(1, 1))
    is_slanting = ~(is_upright | is_level)
    return (strength > before) & np.where(is_slanting, strength > behind, strength >= behind)
