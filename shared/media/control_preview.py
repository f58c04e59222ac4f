"""Makes the picture that a control net would be given, in a confined process: stored PNGs in, a PNG out."""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from shared.errors import RenderError
from shared.media import arrays, framing
from shared.media.arrays import OPAQUE, THRESHOLD, Mask, Pixels
from shared.media.control_question import ControlQuestion
from shared.media.decoder import Answer
from shared.media.framing import View
from shared.media.preprocessors import prepared

_COMPRESSION: Final = 3  # of zlib's 9, as uploads are stored


def answer(packed: bytes) -> bytes:
    """Answer a packed question; the confined process calls it."""
    question = ControlQuestion.unpacked(packed)
    try:
        made = shown(question)
    except RenderError as error:
        return Answer(refused=str(error)).packed()
    out = BytesIO()
    Image.fromarray(made).save(out, "PNG", compress_level=_COMPRESSION)
    return Answer(width=made.shape[1], height=made.shape[0], data=out.getvalue()).packed()


def shown(question: ControlQuestion) -> Pixels:
    """Return what the net is given [h, w, 3], or with an alpha of 0 where an inpainting net should paint [h, w, 4].

    Raises RenderError if a picture is damaged or missing.
    """
    unit, view = question.unit, _view(question)
    control = _opened(question, "control")
    picture = None if control is None else arrays.flattened(control)
    made = prepared(framing.followed(picture, unit, *question.size, view), unit)
    if unit.preprocessor != "inpaint" or view is None or view.mask is None:
        return made
    is_hidden = view.mask > THRESHOLD
    return np.dstack([np.where(is_hidden[..., None], 0, made), np.where(is_hidden, 0, OPAQUE)]).astype(np.uint8)


def softened(mask: Mask, sigma: float) -> Mask:
    """Return `mask` under a Gaussian of deviation `sigma`, cut off at two and a half deviations; mirrored at edges.

    The engine computes the same with PyTorch. A value may differ by 1 where it lies between two whole numbers.
    """
    reach = int(2.5 * sigma + 0.5)
    if reach == 0:
        return mask
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    values: NDArray[np.float32] = ndimage.correlate1d(mask, taps, axis=0, output=np.float32, mode="mirror")
    ndimage.correlate1d(values, taps, axis=1, output=values, mode="mirror")
    np.clip(np.rint(values, out=values), 0, OPAQUE, out=values)
    return values.astype(np.uint8)


def _view(question: ControlQuestion) -> View | None:
    """Return what the render shows of the picture that it starts from; None if the unit depends on none."""
    source, over = _opened(question, "source"), question.img2img
    if source is None or over is None:
        return None
    pixels, given = arrays.flattened(source), _opened(question, "mask")
    mask = None if given is None else arrays.mask(given)
    if over.outpaint.extends:
        pixels, mask = framing.extended(pixels, *question.size, over.outpaint)
    if mask is not None and over.repaints is not None:
        mask = framing.strength(pixels, mask, over.repaints, softened)
    return framing.view(pixels, mask, *question.size, over)


def _opened(question: ControlQuestion, role: str) -> Image.Image | None:
    if role not in question.pictures:
        return None
    try:
        picture = Image.open(BytesIO(question.pictures[role]), formats=("PNG",))
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise RenderError(f"the {role} picture is damaged in the storage: {error}") from error
    return picture
