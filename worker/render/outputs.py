"""The files of a finished image, as bytes: its worker holds nothing else of it until they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import structlog

from shared.infotext.writer import text, upscale_text
from shared.media.making import Making
from shared.media.storage import Kind, key
from shared.queue.claim import Claim
from shared.version import version
from worker import encode
from worker.render import film, making
from worker.renderer import Frame, Rendered

log = structlog.get_logger(__name__)


class Output(NamedTuple):
    """One file of an image, with its key in the storage."""

    kind: Kind
    key: str
    data: bytes

    @property
    def is_extra(self) -> bool:
        """True for a file without which the image still succeeds."""
        return self.kind not in {"picture", "thumbnail"}


def outputs(claim: Claim, rendered: Rendered) -> list[Output]:
    """Return picture, thumbnail, film and how it was made, in this order, under this attempt's keys."""
    params = claim.params
    made: list[tuple[Kind, bytes]] = [
        ("picture", _picture(claim, rendered)),
        ("thumbnail", encode.thumbnail(rendered.pixels)),
        *(_film(claim, rendered) if params.film else ()),
        *(_made(claim, rendered.making) if rendered.making else ()),
    ]
    place = (claim.job_id, claim.index, claim.attempt)
    return [Output(kind, key(*place, kind, params.format), data) for kind, data in made]


def _picture(claim: Claim, rendered: Rendered) -> bytes:
    """Return the picture's file, with the texts that say how it was made."""
    params, hashes = claim.params, claim.models.hashes if claim.models else {}
    form, quality = params.format, params.file_quality
    if params.upscale is None:
        said = text(params, version=version(), hashes=hashes)
        return encode.picture(rendered.pixels, said, form, quality=quality)
    height, width = rendered.pixels.shape[:2]
    said = upscale_text(params.upscale, (width, height))
    return encode.picture(rendered.pixels, params.upscale.pictures[0].parameters, form, said, quality=quality)


def _film(claim: Claim, rendered: Rendered) -> Iterator[tuple[Kind, bytes]]:
    """Yield animation and strip, as far as they can be made; an error never costs the picture."""
    try:
        last = Frame(rendered.steps, rendered.steps, rendered.pixels)
        frames = (*rendered.frames, last)
        yield "film", film.animation(frames)
        yield "strip", film.strip(frames)
    except (OSError, ValueError) as error:  # Pillow's
        log.warning("film not made", job=claim.job_id, image=claim.image_id, reason=str(error))


def _made(claim: Claim, made: Making) -> Iterator[tuple[Kind, bytes]]:
    """Yield the files that show how the picture was made; an error never costs the picture."""
    try:
        yield from making.files(made)
    except (OSError, ValueError) as error:  # Pillow's
        log.warning("intermediates not made", job=claim.job_id, image=claim.image_id, reason=str(error))
