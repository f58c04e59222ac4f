"""The pictures that parameters start from: data URLs become uploads, and an upload has to be the owner's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.orm import Session

from shared.admission.accepted import PICTURE
from shared.errors import FieldError, Refused
from shared.media import uploads
from shared.media.decode import Intake, Picture
from shared.params.render import RenderParams
from shared.wording import LONGEST

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DATA: Final = "data:"


@dataclass(frozen=True)
class Sent:
    """The pictures that came as data URLs with the parameters, and what is wrong with others, by dotted field name."""

    pictures: Mapping[str, Picture] = field(default_factory=dict)
    problems: tuple[FieldError, ...] = ()


NOTHING: Final = Sent()


def sent(params: RenderParams, intake: Intake, owner: str) -> Sent:
    """Return what came as data URLs, read but not stored yet. Raises Unavailable."""
    pictures: dict[str, Picture] = {}
    problems: list[FieldError] = []
    for name, given in named(params).items():
        if _is_data(given):
            try:
                pictures[name] = intake.read_url(given, name, owner)
            except Refused as refused:
                problems += refused.fields
    return Sent(pictures, tuple(problems))


def named(params: RenderParams) -> dict[str, str]:
    """Return the pictures that parameters name, by dotted field name."""
    source = params.img2img
    if source is None:
        return {}
    masked = {} if source.mask is None else {"img2img.mask.picture": source.mask.picture}
    return {"img2img.picture": source.picture} | masked


def stored(params: RenderParams, came: Sent) -> RenderParams:
    """Return the parameters with the hashes of the pictures that came in the places of their data URLs."""
    source, hashes = params.img2img, {name: picture.sha256 for name, picture in came.pictures.items()}
    if source is None or not hashes:
        return params
    mask = source.mask
    if mask is not None:
        mask = mask.model_copy(update={"picture": hashes.get("img2img.mask.picture", mask.picture)})
    picture = hashes.get("img2img.picture", source.picture)
    return params.model_copy(update={"img2img": source.model_copy(update={"picture": picture, "mask": mask})})


def missing(session: Session, owner: str, params: RenderParams, came: Sent) -> Iterator[FieldError]:
    """Yield what is wrong with the pictures that parameters name: no upload of `owner`'s, or nothing that came."""
    yield from came.problems
    known = {*came.pictures, *(problem.field for problem in came.problems)}
    for name, given in named(params).items():
        if name not in known and not (_SHA256.fullmatch(given) and uploads.is_kept(session, owner, given)):
            yield FieldError(name, _unlike(given), PICTURE)


def _unlike(given: str) -> str:
    if _SHA256.fullmatch(given):
        return f"There is no upload {given[:10]}… of yours (any more)"
    if _URL.match(given) and not _is_data(given):
        return "is an address: the farm fetches nothing from elsewhere"
    return f"is neither an upload nor a data URL: {given[:LONGEST]!r}"


def _is_data(given: str) -> bool:
    return given.lstrip()[: len(_DATA)].casefold() == _DATA
