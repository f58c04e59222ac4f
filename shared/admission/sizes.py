"""The size of a picture whose request names none: the checkpoint's own, in the proportions of the source if any."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared.admission.parse import JobRequest
from shared.media import uploads
from shared.params.fields import SOURCE
from shared.params.geometry import CELL, in_proportion
from shared.params.render import RenderParams
from shared.settings import Limits

Size = tuple[int, int]  # width and height, pixels


def of_source(session: Session, request: JobRequest) -> Size | None:
    """Return the size of the picture that a request starts from; None if there is no such picture."""
    if request.params.img2img is None:
        return None
    if picture := request.pictures.get(SOURCE):
        return picture.width, picture.height
    return uploads.size(session, request.owner, request.params.img2img.picture)


def resolved(params: RenderParams, source: Size | None, native: int, limits: Limits) -> Size:
    """Return width and height; a side of 0 is chosen by the native size of the checkpoint.

    With a source its proportions are kept, at the area of the native square, or at the one side that was given.
    """
    width, height = params.width, params.height
    if source is None or (width and height):
        return width or native, height or native
    least, most = _bounds(limits)
    if width or height:
        scale = width / source[0] if width else height / source[1]
        other = source[1] if width else source[0]
        side = min(max(round(other * scale / CELL) * CELL, least), most)
        return (width, side) if width else (side, height)
    return in_proportion_to(source, native, limits)


def in_proportion_to(source: Size, native: int, limits: Limits) -> Size:
    """Return the size with the proportions of `source` at the area of a square of `native` pixels a side."""
    return in_proportion(source, native * native, *_bounds(limits))


def nearest(source: Size, limits: Limits) -> Size:
    """Return the size that can be rendered and is nearest to that of `source`."""
    return in_proportion(source, source[0] * source[1], *_bounds(limits))


def explanation(params: RenderParams, size: Size, source: Size | None, native: int, limits: Limits) -> str | None:
    """Return a sentence that says why `size` was chosen, if a source had a say in it."""
    if source is None or (params.width and params.height):
        return None
    shown, original = f"{size[0]} × {size[1]}", f"{source[0]} × {source[1]}"
    free = resolved(params, source, native, limits.model_copy(update={"min_size": CELL, "max_size": 2**20}))
    if free == size:
        where = "at the side that was given" if params.width or params.height else "at the checkpoint’s own size"
        return f"Rendered at {shown}: the proportions of the source picture ({original}) {where}."
    bounds = f"sides here have {limits.min_size} to {limits.max_size} pixels"
    return f"Rendered at {shown}: the source picture ({original}) would come to {free[0]} × {free[1]}, and {bounds}."


def _bounds(limits: Limits) -> tuple[int, int]:
    """Return the least and the most that a side in whole latent cells may have."""
    return -(-limits.min_size // CELL) * CELL, limits.max_size // CELL * CELL
