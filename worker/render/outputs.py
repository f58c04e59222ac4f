"""What a finished image leaves in the storage, as bytes: all that is kept of it until they are stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import structlog

from shared.infotext.writer import text
from shared.media.storage import Kind, key
from shared.queue.claim import Claim
from shared.version import version
from worker import encode
from worker.render import film
from worker.renderer import Frame, Rendered

log = structlog.get_logger(__name__)


class Result(NamedTuple):
    """One object that an image leaves."""

    kind: Kind
    key: str
    data: bytes

    @property
    def is_film(self) -> bool:
        """True for what the picture never fails for."""
        return self.kind in {"film", "strip"}


def results(claim: Claim, rendered: Rendered) -> list[Result]:
    """Return picture, thumbnail and film, in this order, under this attempt's keys."""
    params = claim.params
    made: list[tuple[Kind, bytes]] = [
        ("picture", encode.picture(rendered.pixels, text(params, version=version()), params.format)),
        ("thumbnail", encode.thumbnail(rendered.pixels)),
        *(_film(claim, rendered) if params.film else ()),
    ]
    place = (claim.job_id, claim.index, claim.attempt)
    return [Result(kind, key(*place, kind, params.format), data) for kind, data in made]


def _film(claim: Claim, rendered: Rendered) -> Iterator[tuple[Kind, bytes]]:
    """Yield the film as well as can be: the picture never waits or fails for it."""
    try:
        frames = _frames(rendered)
        yield "film", film.animation(frames)
        yield "strip", film.strip(frames)
    except (OSError, ValueError) as error:  # Pillow's
        log.warning("film not made", job=claim.job_id, image=claim.image_id, reason=str(error))


def _frames(rendered: Rendered) -> tuple[Frame, ...]:
    """Return the frames of the film: the steps that were kept, of all passes, and the picture."""
    return (*rendered.frames, Frame(rendered.steps, rendered.steps, rendered.pixels))
