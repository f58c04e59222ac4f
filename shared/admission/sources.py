"""The pictures that a job starts from: data URLs become uploads, and an upload has to be the owner's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import structlog
from sqlalchemy.orm import Session

from shared.accounts.scope import Scope
from shared.admission.accepted import PICTURE
from shared.admission.parse import JobRequest
from shared.errors import FieldError, Refused
from shared.media import uploads
from shared.media.decode import Picture, PictureReader
from shared.params import paths
from shared.wording import LONGEST

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DATA: Final = "data:"

log = structlog.get_logger(__name__)


def decoded(request: JobRequest, picture_reader: PictureReader) -> JobRequest:
    """Return a request with its data URLs decoded; its parameters name the pictures by their hashes.

    The pictures are not uploads yet. Raises Unavailable.
    """
    pictures: dict[str, Picture] = {}
    problems: list[FieldError] = []
    for name, given in request.params.pictures.items():
        if _is_data(given):
            try:
                pictures[name] = picture_reader.read_url(given, name, request.owner)
            except Refused as refused:
                problems += refused.fields
    for problem in problems:
        log.info("picture refused", owner=request.owner, field=problem.field, reason=problem.message)
    params = paths.replaced(request.params, {name: picture.sha256 for name, picture in pictures.items()})
    return replace(request, params=params, pictures=pictures, problems=(*request.problems, *problems))


def missing(session: Session, request: JobRequest) -> Iterator[FieldError]:
    """Yield the pictures of a request that neither came with it nor are uploads of its owner."""
    own = Scope(request.owner)
    known = {*request.pictures, *(problem.field for problem in request.problems)}
    for name, given in request.params.pictures.items():
        if name not in known and not (_SHA256.fullmatch(given) and uploads.is_kept(session, own, given)):
            yield FieldError(name, _unlike(given), PICTURE)


def _unlike(given: str) -> str:
    if _SHA256.fullmatch(given):
        return f"You have no upload {given[:10]}…; it may have been deleted"
    if _URL.match(given) and not _is_data(given):
        return "is an address: the farm fetches nothing from elsewhere"
    return f"is neither an upload nor a data URL: {given[:LONGEST]!r}"


def _is_data(given: str) -> bool:
    return given.lstrip()[: len(_DATA)].casefold() == _DATA
