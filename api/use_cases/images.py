"""The use cases of pictures: upload and fetch them, read the parameters in their files.

As in `api.use_cases.jobs` each function opens its own transaction, and anything of another owner is NotFound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

import structlog

from api.schemas.jobs import EXTENSIONS, PngInfoBody, UploadBody
from api.services import Services
from shared.accounts.principal import Principal
from shared.admission import salvage, sizes
from shared.db.sessions import transact
from shared.errors import Conflict, NotFound, Refused, StorageAway
from shared.infotext import reader
from shared.jobs.stored import value_words
from shared.media import uploads
from shared.media.storage import Kind, Storage, key, upload_key
from shared.params.fields import FileFormat
from shared.queue import queries

log = structlog.get_logger(__name__)

_INTERMEDIATES: Final[frozenset[Kind]] = frozenset({"noise", "latents", "guidance", "intermediates"})
MISSING: Final = "missing.txt"
"""The file of a zip that names the pictures which could not be read."""


@dataclass(frozen=True)
class Stored:
    """Bytes of an image that never change; read when they are needed."""

    services: Services
    key: str
    form: FileFormat = "png"  # of the picture

    @property
    def tag(self) -> str:
        """The identity of these bytes: job, index and attempt."""
        return self.key.rpartition("/")[2]

    def read(self) -> bytes:
        """Return the bytes. Raises NotFound, StorageError."""
        return self.services.storage.get(self.key)


def upload(services: Services, who: Principal, data: bytes) -> UploadBody:
    """Store a picture to start from, as it came in a file. Raises Refused, StorageError."""
    with _logged(who.owner, data):
        picture = services.picture_reader.read(data, "file", who.owner)
        uploads.keep(services.sessions, services.storage, who.owner, {"file": picture}, services.limits(who))
    return UploadBody(id=picture.sha256, width=picture.width, height=picture.height, bytes=len(picture.png))


class FittingSizes(NamedTuple):
    """The size of a render that starts from a picture and names none, and the nearest one to the picture's own."""

    width: int
    height: int
    own_width: int
    own_height: int


def fitting_sizes(services: Services, who: Principal, sha256: str, native: int) -> FittingSizes | None:
    """Return what sizes fit an upload, for a checkpoint of this native size; None: there is no such upload."""
    source = transact(services.sessions, lambda session: uploads.size(session, who.owner, sha256))
    if source is None:
        return None
    limits = services.settings.limits
    return FittingSizes(*sizes.own(source, native, limits), *sizes.nearest(source, limits))


def uploaded(services: Services, who: Principal, sha256: str) -> Stored:
    """Return a picture that the owner has uploaded. Raises NotFound."""
    if not transact(services.sessions, lambda session: uploads.is_kept(session, who.scope, sha256)):
        raise NotFound("There is no such upload.")
    return Stored(services, upload_key(sha256))


def stored(services: Services, who: Principal, job_id: int, index: int, kind: Kind) -> Stored:
    """Return a file of an image's committed attempt: picture, thumbnail or film. Raises NotFound."""
    found = transact(services.sessions, lambda session: queries.finished(session, who.scope, job_id, index))
    if index not in found.attempts:
        raise NotFound(f"Image {index} of job {job_id} has no picture yet, or it was deleted, or does not exist.")
    if kind == "picture" and "format" in found.unknown:
        raise NotFound(_strange_format(job_id, found.unknown["format"]))
    params = found.spec.image(index)
    if kind in {"film", "strip"} and not params.film:
        raise NotFound(f"Job {job_id} was rendered without a film.")
    if kind in _INTERMEDIATES and not params.intermediates:
        raise NotFound(f"Job {job_id} was rendered without keeping how its pictures were made.")
    return Stored(services, key(job_id, index, found.attempts[index], kind, params.format), params.format)


def archive(services: Services, who: Principal, job_id: int) -> Iterator[tuple[str, bytes]]:
    """Return the names and bytes of a job's pictures, each read when it is needed.

    A text file at the end names the pictures that cannot be read. Raises NotFound, Conflict; StorageAway if the storage
    does not return even the first one.
    """
    found = transact(services.sessions, lambda session: queries.finished(session, who.scope, job_id))
    if not found.attempts:
        raise Conflict(f"Job {job_id} has no finished picture yet.")
    if "format" in found.unknown:
        raise Conflict(_strange_format(job_id, found.unknown["format"]))
    formats = {index: found.spec.image(index).format for index in found.attempts}
    keys = {
        f"{job_id}-{index:04}.{EXTENSIONS[formats[index]]}": key(job_id, index, attempt, "picture", formats[index])
        for index, attempt in found.attempts.items()
    }
    return opened(services.storage, keys)


def opened(storage: Storage, keys: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Return the files of these names and keys, each read when it is needed; `archive` says the rest."""
    files = _read(storage, keys)
    return chain([next(files)], files)  # an error of all of them is raised before the first byte is sent


def _read(storage: Storage, keys: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of these names and keys, and then a text that names those that could not be read.

    Raises NotFound if none is stored any more, StorageAway if the storage does not return even the first.
    """
    missing: dict[str, str] = {}
    rest = iter(keys.items())
    for read, (name, stored_as) in enumerate(rest):
        try:
            yield name, storage.get(stored_as)
        except NotFound:
            missing[name] = "it is no longer in the storage"
        except StorageAway as error:
            if read == len(missing):
                raise
            reason = f"the storage does not return it now: {error.why}"
            missing |= dict.fromkeys([name, *(name for name, _ in rest)], reason)  # each request might take as long
    if len(missing) == len(keys):
        raise NotFound("None of the pictures is in the storage any more.")
    if missing:
        title = f"{len(missing)} of the {len(keys)} pictures are not in this file:"
        lines = (f"{name}: {reason}" for name, reason in missing.items())
        yield MISSING, "\n".join([title, "", *lines, ""]).encode()


def file_parameters(services: Services, who: Principal, data: bytes) -> PngInfoBody:
    """Return the parameters in a picture's file that `who` can submit here. Raises Refused that names `file`."""
    with _logged(who.owner, data):
        text = services.picture_reader.text(data, "file", who.owner)
    said = reader.read(text)
    fit = salvage.fit(services.sessions, said.params, who.owner, services.limits(who), said.embeddings)
    return PngInfoBody(text=text, params=fit.params, left_out=[*said.left_out, *fit.left_out])


def preview(services: Services, who: Principal, job_id: int, index: int) -> bytes:
    """Return the latest preview of a running image. Raises NotFound if there is none."""
    transact(services.sessions, lambda session: queries.owner(session, who.scope, job_id))
    data = services.events.preview(job_id, index)
    if data is None:
        raise NotFound(f"Image {index} of job {job_id} has no preview now.")
    return data


def _strange_format(job_id: int, form: object) -> str:
    return (
        f"The pictures of job {job_id} have a format that only a newer version of the farm knows: {value_words(form)}."
    )


@contextmanager
def _logged(owner: str, data: bytes) -> Iterator[None]:
    """Log the refusal of a picture, and why."""
    try:
        yield
    except Refused as refused:
        log.info("picture refused", owner=owner, bytes=len(data), reason=str(refused))
        raise
