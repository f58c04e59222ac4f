"""The host's part of img2img: source and mask brought to what a render works on, and the result brought back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.errors import RenderError
from shared.params.geometry import CELL
from shared.params.groups import Img2Img
from shared.params.groups import Mask as MaskOptions
from shared.params.render import RenderParams
from worker.engine.images import colours, masks
from worker.engine.images.arrays import OPAQUE, Mask, Pixels, resized, rounded
from worker.engine.images.masks import Box
from worker.engine.pipelines.inputs import Kit


@dataclass(frozen=True, eq=False)
class Canvas:
    """What a render starts from, and where its result goes: onto `box` of `original`, as far as `overlay` says."""

    start: Pixels  # what is encoded, the masked part filled in where that was asked for
    shown: Pixels  # of the render's size, as it was
    mask: Mask | None  # of the render's size, blurred; None: all is painted again
    original: Pixels
    box: Box
    overlay: Mask | None  # of the original's size


def prepared(params: RenderParams, options: Img2Img, kit: Kit) -> Canvas:
    """Return the canvas of `params`; a mask that leaves nothing to paint is as none.

    Raises RenderError where a picture that they name is not there.
    """
    if kit.source is None:
        raise RenderError("the picture to start from is missing")
    how = options.mask
    mask = _mask(kit.source, kit.mask, how) if how else None
    if how is not None and mask is not None and how.area == "only masked":
        return _close_up(kit.source, mask, params, how)
    shown = resized(kit.source, params.width, params.height, options.resize_mode)
    start = _in_cells(kit.source) if options.resize_mode == "latent" else shown
    if how is None or mask is None:
        return Canvas(start, shown, None, shown, _whole(shown), None)
    fitted = resized(mask, params.width, params.height, options.resize_mode)
    start = _begun(start, resized(fitted, start.shape[1], start.shape[0]), how)
    return Canvas(start, shown, fitted, shown, _whole(shown), fitted if how.soft else _doubled(fitted))


def finished(canvas: Canvas, pixels: Pixels, options: Img2Img) -> Pixels:
    """Return the picture that comes out: `pixels` in the source's colours if asked for, the original laid back over."""
    if options.color_correction:
        pixels = colours.matched(pixels, canvas.shown)
    if canvas.overlay is None:
        return pixels
    box, result = canvas.box, canvas.original.copy()
    place = np.s_[box.top : box.bottom, box.left : box.right]
    part = resized(pixels, *box.size, "crop")
    result[place] = masks.laid_over(part, canvas.original[place], canvas.overlay[place])
    return result


def _mask(source: Pixels, mask: Mask | None, options: MaskOptions) -> Mask | None:
    """The mask in the source's size, inverted and blurred as asked; None where it is blank."""
    if mask is None:
        raise RenderError("the mask is missing")
    sharp = rounded(resized(mask, source.shape[1], source.shape[0]))
    blurred = masks.blurred(OPAQUE - sharp if options.invert else sharp, options.blur)
    return blurred if blurred.any() else None


def _close_up(source: Pixels, mask: Mask, params: RenderParams, how: MaskOptions) -> Canvas:
    """The part around the mask, enlarged to the render's size."""
    width, height = params.width, params.height
    box = masks.frame(mask, width, height, how.padding) or _whole(source)
    place = np.s_[box.top : box.bottom, box.left : box.right]
    shown, fitted = (resized(each[place], width, height, "fill") for each in (source, mask))
    return Canvas(_begun(shown, fitted, how), shown, fitted, source, box, mask)


def _begun(pixels: Pixels, mask: Mask, how: MaskOptions) -> Pixels:
    """`pixels` with the masked part filled in, unless it is to start from what it was."""
    return pixels if how.content == "original" else masks.filled(pixels, mask)


def _doubled(mask: Mask) -> Mask:
    """`mask` twice as strong: the original comes back only where less than half was painted."""
    return (mask * 2.0).clip(0, OPAQUE).astype(np.uint8)


def _in_cells(source: Pixels) -> Pixels:
    """`source` at its own size in whole latent cells."""
    width, height = (max(1, side // CELL) * CELL for side in (source.shape[1], source.shape[0]))
    return resized(source, width, height)


def _whole(pixels: Pixels) -> Box:
    return Box(0, 0, pixels.shape[1], pixels.shape[0])
