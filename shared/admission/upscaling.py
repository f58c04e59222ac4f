"""Admission of jobs that enlarge pictures: no checkpoint, no prompt, one image for each picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy.orm import Session

from shared.admission import backlog, scheduling, sources
from shared.admission.face_restorers import named_restorer
from shared.admission.parse import JobRequest, refused
from shared.admission.upscalers import named_upscaler
from shared.errors import FieldError
from shared.media import uploads
from shared.models.catalogue import Catalogue
from shared.models.model_set import ModelSet
from shared.params import upscalers
from shared.params.render import RenderParams
from shared.params.upscale import MOST_PICTURES, MOST_TEXT, Upscale
from shared.params.upscalers import WITHOUT_FILE
from shared.queue.submit import Admission
from shared.settings import Limits

_OWN: Final = frozenset({"upscale", "format", "file_quality"})
_PLAIN: Final = RenderParams()


def is_wanted(request: JobRequest) -> bool:
    """Return whether a request asks for pictures to be enlarged, in the right form or not."""
    return request.params.upscale is not None or any(one.field.startswith("upscale") for one in request.problems)


def admitted(session: Session, request: JobRequest, catalogue: Catalogue) -> Admission:
    """Return the job that enlarges pictures. Raises Refused that names every bad field."""
    owner, limits, wanted = request.owner, request.limits, request.params.upscale
    if wanted is None:
        raise refused(request.problems)
    names: dict[str, object] = {}
    roles: dict[str, str] = {}
    problems = [*request.problems, *_without_effect(request.params)]
    for field, role in (("upscaler", "upscaler"), ("second", "second_upscaler")):
        text = getattr(wanted, field)
        if not text and field == "second":
            continue
        found = named_upscaler(catalogue, text, f"upscale.{field}", WITHOUT_FILE)
        problems += filter(None, [found.problem])
        names[field] = found.file.title if found.file else upscalers.spelled(text) or text
        if found.file and found.file.sha256:
            roles[role] = found.file.sha256
    if wanted.faces:
        restorer = named_restorer(catalogue, wanted.faces, "upscale.faces")
        problems += restorer.problems
        if restorer.file and restorer.file.sha256:
            names["faces"] = wanted.faces.model_copy(update={"restorer": restorer.file.title})
            roles["face_restorer"] = restorer.file.sha256
    problems += [
        *_too_many(wanted, limits),
        *sources.missing(session, request),
        *_too_large(session, request, wanted),
        *uploads.without_room(session, owner, request.pictures, limits),
        *scheduling.impossible(session, owner, request.scheduling, limits),
        *backlog.too_many(session, owner, limits),
    ]
    if problems:
        raise refused(problems)
    update = {"upscale": wanted.model_copy(update=names), "count": len(wanted.pictures)}
    return Admission(
        owner,
        request.params.model_copy(update=update),
        ModelSet.model_validate(roles),
        request.scheduling,
        request.digest,
    )


def _without_effect(params: RenderParams) -> Iterator[FieldError]:
    """Yield the parameters of a render that came beside pictures to enlarge."""
    for name in type(params).model_fields:
        if name not in _OWN and getattr(params, name) != getattr(_PLAIN, name):
            accepted = "upscale.faces" if name == "faces" else "nothing beside upscale and format"
            yield FieldError(name, "has no effect on a job that enlarges pictures", accepted)


def _too_many(wanted: Upscale, limits: Limits) -> Iterator[FieldError]:
    most = min(MOST_PICTURES, limits.max_count)
    if (count := len(wanted.pictures)) > most:
        yield FieldError("upscale.pictures", f"{count} are too many", f"1 to {most} pictures; more in further jobs")
    if (length := sum(len(one.parameters) for one in wanted.pictures)) > MOST_TEXT:
        accepted = f"at most {MOST_TEXT:,} characters in the parameters of all pictures; more in further jobs"
        yield FieldError("upscale.pictures", f"have {length:,} characters of text", accepted)


def _too_large(session: Session, request: JobRequest, wanted: Upscale) -> Iterator[FieldError]:
    """Yield the pictures whose result would pass the farm's limits."""
    limits = request.limits
    for at, one in enumerate(wanted.pictures):
        name = f"upscale.pictures.{at}.picture"
        given = request.pictures.get(name)
        size = (given.width, given.height) if given else uploads.size(session, request.owner, one.picture)
        if size is None:
            continue  # it is missing
        width, height = wanted.size(*size)
        if max(width, height) > limits.max_size:
            field = "upscale.width" if wanted.width or wanted.height else "upscale.scale"
            most = f"a result of at most {limits.max_size} pixels a side"
            yield FieldError(field, f"picture {at} of {size[0]}x{size[1]} would become {width}x{height}", most)
