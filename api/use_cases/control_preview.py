"""Use case: a person sees what a control net would be given, before there is a job."""

from __future__ import annotations

from api.services import Services
from shared.accounts.principal import Principal
from shared.admission import control_preview, sources
from shared.admission.parse import JobRequest, parse, refused
from shared.db.sessions import transact
from shared.errors import FieldError, NotFound
from shared.media.control_question import ControlQuestion
from shared.media.storage import upload_key
from shared.params import paths


def picture(services: Services, who: Principal, given: object, number: int) -> bytes:
    """Return the picture that the control net `number` of a job would be given in the first pass, as a PNG.

    Raises Refused that names every bad field; NotLooked, StorageError, Unavailable.
    """
    reader = services.picture_reader
    request = sources.decoded(parse(given, who.owner, services.limits(who)), reader)
    wanted = transact(services.sessions, lambda session: control_preview.admitted(session, request, number))
    pictures = {role: _stored(services, request, field) for role, field in wanted.pictures.items()}
    question = ControlQuestion(wanted.unit, wanted.size, request.params.img2img, pictures)
    return reader.control(question, wanted.field, who.owner)


def _stored(services: Services, request: JobRequest, field: str) -> bytes:
    """Return a picture of the request as a PNG: one that came with it, or an upload. Raises Refused, StorageError."""
    if field in request.pictures:
        return request.pictures[field].png
    try:
        return services.storage.get(upload_key(paths.get(request.params, field)))
    except NotFound:
        raise refused([FieldError(field, "is no longer stored", "the picture, uploaded again")]) from None
