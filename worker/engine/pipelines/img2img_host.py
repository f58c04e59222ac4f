"""The host's part of img2img: source and mask before the render, and the final picture after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.errors import RenderError
from shared.media import framing
from shared.media.arrays import OPAQUE, Mask, Pixels, resized
from shared.media.framing import View
from shared.params.img2img import Img2Img
from shared.params.img2img import Mask as MaskOptions
from shared.params.render import RenderParams
from worker.engine.images import colours, masks
from worker.engine.pipelines.inputs import Kit


@dataclass(frozen=True, eq=False)
class Canvas(View):
    """The start of a render, and the place of its result: `box` of `original`, as far as `overlay` says."""

    start: Pixels  # is encoded; its masked part may be filled in
    original: Pixels
    overlay: Mask | None  # of the original's size


def prepared(params: RenderParams, options: Img2Img, kit: Kit) -> Canvas:
    """Return the canvas of `params`; a mask without anything to paint counts as no mask.

    Raises RenderError if a picture that they name is missing.
    """
    if kit.source is None:
        raise RenderError("the picture to start from is missing")
    source, sharp, how = kit.source, kit.mask, options.repaints
    if options.outpaint.extends:
        source, sharp = framing.extended(source, params.width, params.height, options.outpaint)
    mask = _mask(source, sharp, how) if how else None
    view = framing.view(source, mask, params.width, params.height, options)
    seen = view.shown, view.mask, view.box, view.size
    if how is not None and view.mask is not None and how.area == "only masked":
        return Canvas(*seen, _filled(view.shown, view.mask, how), source, mask)
    start = view.shown
    if options.resize_mode == "latent":  # the source at its own size in whole latent cells
        cell = kit.weights.latent.cell
        width, height = (max(1, side // cell) * cell for side in (source.shape[1], source.shape[0]))
        start = resized(source, width, height)
    if how is None or view.mask is None:
        return Canvas(*seen, start, view.shown, None)
    start = _filled(start, resized(view.mask, start.shape[1], start.shape[0]), how)
    # Twice as strong: the original comes back only where less than half was painted.
    overlay = view.mask if how.soft else (view.mask * 2.0).clip(0, OPAQUE).astype(np.uint8)
    return Canvas(*seen, start, view.shown, overlay)


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
    return framing.strength(source, mask, options, masks.blurred)


def _filled(pixels: Pixels, mask: Mask, how: MaskOptions) -> Pixels:
    """Return `pixels` with the masked part filled in, unless it starts from the original."""
    return pixels if how.content == "original" else masks.filled(pixels, mask)
