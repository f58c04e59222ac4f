"""The host's part of img2img: source and mask before the render, and the final picture after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.errors import RenderError
from shared.media.arrays import OPAQUE, Mask, Pixels, resized, rounded
from shared.params.img2img import Img2Img
from shared.params.img2img import Mask as MaskOptions
from shared.params.render import RenderParams
from worker.engine.images import colours, masks
from worker.engine.images.masks import Box
from worker.engine.pipelines.inputs import Kit


@dataclass(frozen=True, eq=False)
class Canvas:
    """The start of a render, and the place of its result: `box` of `original`, as far as `overlay` says."""

    start: Pixels  # is encoded; its masked part may be filled in
    shown: Pixels  # of the render's size, without changes
    mask: Mask | None  # of the render's size, blurred; None: all is repainted
    original: Pixels
    box: Box
    overlay: Mask | None  # of the original's size


def prepared(params: RenderParams, options: Img2Img, kit: Kit) -> Canvas:
    """Return the canvas of `params`; a mask without anything to paint counts as no mask.

    Raises RenderError if a picture that they name is missing.
    """
    if kit.source is None:
        raise RenderError("the picture to start from is missing")
    how = options.mask
    mask = _mask(kit.source, kit.mask, how) if how else None
    if how is not None and mask is not None and how.area == "only masked":
        return _close_up(kit.source, mask, params, how)
    shown = resized(kit.source, params.width, params.height, options.resize_mode)
    start = shown
    if options.resize_mode == "latent":  # the source at its own size in whole latent cells
        cell = kit.weights.latent.cell
        width, height = (max(1, side // cell) * cell for side in (kit.source.shape[1], kit.source.shape[0]))
        start = resized(kit.source, width, height)
    if how is None or mask is None:
        return Canvas(start, shown, None, shown, _whole(shown), None)
    fitted = resized(mask, params.width, params.height, options.resize_mode)
    start = _filled(start, resized(fitted, start.shape[1], start.shape[0]), how)
    # Twice as strong: the original comes back only where less than half was painted.
    overlay = fitted if how.soft else (fitted * 2.0).clip(0, OPAQUE).astype(np.uint8)
    return Canvas(start, shown, fitted, shown, _whole(shown), overlay)


def finished(canvas: Canvas, pixels: Pixels, options: Img2Img) -> Pixels:
    """Return the final picture: `pixels` in the source's colours if wanted, with the unmasked original laid over."""
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
    """Return the mask in the source's size, inverted and blurred as `options` say; None if it is blank."""
    if mask is None:
        raise RenderError("the mask is missing")
    sharp = rounded(resized(mask, source.shape[1], source.shape[0]))
    blurred = masks.blurred(OPAQUE - sharp if options.invert else sharp, options.blur)
    return blurred if blurred.any() else None


def _close_up(source: Pixels, mask: Mask, params: RenderParams, how: MaskOptions) -> Canvas:
    """Return the part around the mask, enlarged to the render's size."""
    width, height = params.width, params.height
    box = masks.frame(mask, width, height, how.padding) or _whole(source)
    place = np.s_[box.top : box.bottom, box.left : box.right]
    shown, fitted = (resized(each[place], width, height, "fill") for each in (source, mask))
    return Canvas(_filled(shown, fitted, how), shown, fitted, source, box, mask)


def _filled(pixels: Pixels, mask: Mask, how: MaskOptions) -> Pixels:
    """Return `pixels` with the masked part filled in, unless it starts from the original."""
    return pixels if how.content == "original" else masks.filled(pixels, mask)


def _whole(pixels: Pixels) -> Box:
    return Box(0, 0, pixels.shape[1], pixels.shape[0])
