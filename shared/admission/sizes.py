"""The size of a picture whose request names none: the checkpoint's own, in the proportions of the source if any."""

from __future__ import annotations

from math import isqrt
from typing import Final

from sqlalchemy.orm import Session

from shared.admission.parse import JobRequest
from shared.media import uploads
from shared.models.catalogue import Entry
from shared.params.fields import SOURCE
from shared.params.geometry import CELL, in_proportion
from shared.params.img2img import Outpaint
from shared.params.render import RenderParams
from shared.settings import Limits

Size = tuple[int, int]  # width and height, pixels

_USUAL: Final = 512  # pixels of a side, of a checkpoint that does not say
_NO_LIMITS: Final = Limits(min_size=CELL, max_size=2**20, max_pixels=2**40)


def native(checkpoint: Entry | None) -> int:
    """Return the side of the square that a checkpoint was trained for, pixels."""
    return (checkpoint and checkpoint.native_size) or _USUAL


def of_source(session: Session, request: JobRequest) -> Size | None:
    """Return the size of the picture that a request starts from; None if there is no such picture."""
    if request.params.img2img is None:
        return None
    if picture := request.pictures.get(SOURCE):
        return picture.width, picture.height
    return uploads.size(session, request.owner, request.params.img2img.picture)


def resolved(params: RenderParams, source: Size | None, native: int, limits: Limits) -> Size:
    """Return width and height; a side of 0 is chosen by the native size of the checkpoint, within the limits.

    With a source its proportions are kept, at the area of the native square, or at the one side that was given. One
    that is extended keeps its own pixels, if that is within the limits.
    """
    width, height = params.width, params.height
    if source and (how := outpaint(params)) and not is_beyond(extended(source, how), limits):
        return extended(source, how)
    if width and height:
        return width, height
    if not (width or height):
        return own(source, native, limits)
    other = native if source is None else (width * source[1] / source[0] if width else height * source[0] / source[1])
    side = _beside(width or height, other, limits)
    return (width, side) if width else (side, height)


def own(source: Size | None, native: int, limits: Limits) -> Size:
    """Return the size at the area of a square of `native` pixels a side: that square, or in a source's proportions."""
    return _fitting(source or (native, native), native * native, limits)


def outpaint(params: RenderParams) -> Outpaint | None:
    """Return how the source of `params` is extended; None if it is not."""
    how = params.img2img.outpaint if params.img2img else None
    return how if how and how.extends else None


def extended(source: Size, how: Outpaint) -> Size:
    """Return the size of a source with its new sides, in whole latent cells."""
    width, height = source[0] + how.left + how.right, source[1] + how.top + how.bottom
    return -(-width // CELL) * CELL, -(-height // CELL) * CELL


def is_beyond(size: Size, limits: Limits) -> bool:
    """Return whether a size passes the farm's limits."""
    return min(size) < limits.min_size or max(size) > limits.max_size or size[0] * size[1] > limits.max_pixels


def within(limits: Limits) -> str:
    """Return in words which sizes a farm renders."""
    bounds = f"sides of {limits.min_size} to {limits.max_size} pixels"
    return f"{bounds} and an area of at most {limits.max_pixels:,}"


def nearest(source: Size, limits: Limits) -> Size:
    """Return the size that can be rendered and is nearest to that of `source`."""
    return _fitting(source, source[0] * source[1], limits)


def explanation(params: RenderParams, size: Size, source: Size | None, native: int, limits: Limits) -> str | None:
    """Return a sentence that says why `size` was chosen, if a source or the limits had a say in it."""
    if params.width and params.height:
        return None
    shown, free = f"{size[0]} × {size[1]}", resolved(params, source, native, _NO_LIMITS)
    if free != size:
        what = "the checkpoint’s own size" if source is None else f"the source picture ({source[0]} × {source[1]})"
        came_to = f"{what} would come to {free[0]} × {free[1]}"
        return f"Rendered at {shown}: {came_to}, and pictures here have {within(limits)}."
    if source is None:
        return None
    if outpaint(params):
        return f"Rendered at {shown}: the source picture ({source[0]} × {source[1]}) with its new sides."
    where = "at the side that was given" if params.width or params.height else "at the checkpoint’s own size"
    return f"Rendered at {shown}: the proportions of the source picture ({source[0]} × {source[1]}) {where}."


def largest_square(limits: Limits) -> int:
    """Return the side of the largest square that may be rendered, pixels."""
    return min(_bounds(limits)[1], isqrt(limits.max_pixels) // CELL * CELL)


def _beside(given: int, wanted: float, limits: Limits) -> int:
    """Return the side nearest to `wanted` that a picture may have whose other side is given."""
    least, most = _bounds(limits)
    most = min(most, limits.max_pixels // given // CELL * CELL)
    return max(least, min(round(wanted / CELL) * CELL, most))


def _fitting(source: Size, area: int, limits: Limits) -> Size:
    """Return the size that may be rendered, has the proportions of `source` and about `area` pixels."""
    width, height = in_proportion(source, min(area, limits.max_pixels), *_bounds(limits))
    while width * height > limits.max_pixels:  # both sides were rounded up
        width, height = (width - CELL, height) if width >= height else (width, height - CELL)
    return width, height


def _bounds(limits: Limits) -> tuple[int, int]:
    """Return the least and the most that a side in whole latent cells may have."""
    return -(-limits.min_size // CELL) * CELL, limits.max_size // CELL * CELL
