"""The part of a source picture that a render shows, and what control nets are given in it. Plain functions of pixels.

Engine and API call them alike, so what a person is shown beforehand is what the net is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from shared.errors import RenderError
from shared.media.arrays import OPAQUE, Mask, Pixels, resized, rounded
from shared.params.controlnet import ControlUnit
from shared.params.geometry import CELL
from shared.params.img2img import Img2Img, Outpaint
from shared.params.img2img import Mask as MaskOptions

Size = tuple[int, int]  # width and height, pixels


class Box(NamedTuple):
    """A part of a picture: pixels from `left` and `top` to before `right` and `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top

    def of(self, pixels: Pixels) -> Pixels:
        """Return this part of a picture [h, w, 3] or of a mask [h, w]."""
        return pixels[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True, eq=False)
class View:
    """What a render shows of its source: `box` of a picture of `size`."""

    shown: Pixels  # of the render's size
    mask: Mask | None  # of the render's size, blurred; None: all is repainted
    box: Box
    size: Size


def strength(source: Pixels, mask: Mask, how: MaskOptions, blurred: Callable[[Mask, float], Mask]) -> Mask | None:
    """Return how far each pixel of `source` is repainted, softened by `blurred`; None if none is."""
    sharp = rounded(resized(mask, source.shape[1], source.shape[0]))
    soft = blurred(OPAQUE - sharp if how.invert else sharp, how.blur)
    return soft if soft.any() else None


def extended(source: Pixels, width: int, height: int, how: Outpaint) -> tuple[Pixels, Mask]:
    """Return `source` on a canvas of this size, and a sharp mask over what is to be painted: all that is new, and half
    of the feather.

    The canvas may be up to seven pixels wider and higher than the picture with its new sides, so that both are whole
    latent cells. These go to a side that is extended, else to the right or the bottom, which then counts as one.
    Raises RenderError if the picture does not fit, or no part of it would be left.
    """
    over_x = width - source.shape[1] - how.left - how.right
    over_y = height - source.shape[0] - how.top - how.bottom
    if not (0 <= over_x < CELL and 0 <= over_y < CELL):
        raise RenderError(f"the picture to extend does not fit into {width}x{height}")
    left, top = how.left, how.top
    left += over_x if left and not how.right else 0
    top += over_y if top and not how.bottom else 0
    right, bottom = width - source.shape[1] - left, height - source.shape[0] - top
    mode: Literal["edge", "symmetric"] = "symmetric" if how.content == "mirror" else "edge"
    pixels = np.pad(source, ((top, bottom), (left, right), (0, 0)), mode=mode)
    seam = how.feather // 2
    kept = Box(
        left + seam * bool(left),
        top + seam * bool(top),
        width - right - seam * bool(right),
        height - bottom - seam * bool(bottom),
    )
    if min(kept.size) <= 0:
        raise RenderError(f"a feather of {how.feather} leaves nothing of the picture to extend")
    mask = np.full((height, width), OPAQUE, np.uint8)
    kept.of(mask)[...] = 0
    return pixels, mask


def view(source: Pixels, mask: Mask | None, width: int, height: int, options: Img2Img) -> View:
    """Return what a render of this size shows of `source`; `mask` is of its size, and blurred."""
    how = options.repaints
    if mask is not None and how is not None and how.area == "only masked":
        box = frame(mask, width, height, how.padding) or _whole(source)
        shown, fitted = (resized(box.of(each), width, height, "fill") for each in (source, mask))
        return View(shown, fitted, box, (source.shape[1], source.shape[0]))
    shown = resized(source, width, height, options.resize_mode)
    fitted_mask = None if mask is None else resized(mask, width, height, options.resize_mode)
    return View(shown, fitted_mask, _whole(shown), (width, height))


def followed(picture: Pixels | None, unit: ControlUnit, width: int, height: int, view: View | None) -> Pixels:
    """Return a unit's picture at the size of a render: the part around the mask, if only that is rendered.

    Without a `picture` the source is followed. Raises RenderError if there is none either.
    """
    if picture is None:
        if view is None:
            raise RenderError("the control picture is missing")
        return resized(view.shown, width, height)
    if view is None or view.box.size == view.size:
        return resized(picture, width, height, unit.resize)
    whole = resized(picture, *view.size, unit.resize)
    return resized(view.box.of(whole), width, height, "fill")


def frame(mask: Mask, width: int, height: int, padding: int) -> Box | None:
    """Return the box around the masked part, with `padding`, in the proportions of `width` x `height` if there is room;
    None if nothing is masked.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    left, right = _padded(int(columns[0]), int(columns[-1]) + 1, padding, mask.shape[1])
    top, bottom = _padded(int(rows[0]), int(rows[-1]) + 1, padding, mask.shape[0])
    if (right - left) * height > width * (bottom - top):
        top, bottom = _widened(top, bottom, (right - left) * height // width, mask.shape[0])
    else:
        left, right = _widened(left, right, (bottom - top) * width // height, mask.shape[1])
    return Box(left, top, right, bottom)


def _whole(pixels: Pixels) -> Box:
    return Box(0, 0, pixels.shape[1], pixels.shape[0])


def _padded(start: int, end: int, padding: int, limit: int) -> tuple[int, int]:
    return max(0, start - padding), min(limit, end + padding)


def _widened(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """Return `length` pixels around the middle of a stretch, moved inside the picture, or all of a shorter picture."""
    start -= (length - (end - start)) // 2
    start = max(0, min(start, limit - length))
    return start, min(limit, start + length)
