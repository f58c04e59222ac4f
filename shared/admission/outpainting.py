"""A source picture that is extended: the size that comes out, and what contradicts it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.admission import sizes
from shared.admission.sizes import Size
from shared.errors import FieldError
from shared.params.img2img import Outpaint
from shared.params.render import RenderParams
from shared.settings import Limits

_AT: Final = "img2img.outpaint"
_ALONG: Final = (("left", "right"), ("top", "bottom"))  # the sides that make a picture wider, and higher


def impossible(params: RenderParams, source: Size | None, limits: Limits) -> Iterator[FieldError]:
    """Yield why the `source` of parameters as they were asked for cannot be extended, if it is to be."""
    start = params.img2img
    if start is None or not start.outpaint.extends:
        return
    how = start.outpaint
    if start.mask is not None:
        yield FieldError(_longest(how), "extends a picture that is masked too", "0, or no mask: one after the other")
    if source is None:  # said of the picture itself
        return
    final = sizes.extended(source, how)
    if sizes.is_beyond(final, limits):
        message = f"the picture of {source[0]}x{source[1]} would become {final[0]}x{final[1]}"
        yield FieldError(_longest(how), message, sizes.within(limits))
        return
    for name, given, side in zip(("width", "height"), (params.width, params.height), final, strict=True):
        if given not in {0, side}:
            yield FieldError(name, f"is {given}, and the extended picture has {side}", f"{side}, or 0")
    for side, end, names in zip(source, final, _ALONG, strict=True):
        seams = sum(getattr(how, name) > 0 for name in names) or int(end > side)
        if how.feather * seams >= side:
            message = f"{how.feather} leaves nothing of a picture of {source[0]}x{source[1]}"
            yield FieldError(f"{_AT}.feather", message, f"at most {(side - 1) // seams}")
            return


def _longest(how: Outpaint) -> str:
    """Return the field of the side that is extended most."""
    return f"{_AT}.{max((name for names in _ALONG for name in names), key=lambda name: getattr(how, name))}"
