"""What a person may see of a control net's picture before a job: the rules of admission, for that picture alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sqlalchemy.orm import Session

from shared.admission import control_nets, outpainting, ranges, sizes, sources
from shared.admission.checkpoints import named_checkpoint
from shared.admission.parse import JobRequest, refused
from shared.errors import FieldError
from shared.models.catalogue import Catalogue
from shared.params.controlnet import ControlUnit
from shared.params.fields import MASK, SOURCE
from shared.params.render import RenderParams


class ControlPreview(NamedTuple):
    """A control net's unit, the size of the job's first pass, and the fields of the pictures that it depends on."""

    unit: ControlUnit
    size: sizes.Size
    pictures: Mapping[str, str]  # dotted field names by role: control, source, mask

    @property
    def field(self) -> str:
        """The field of the picture that the net follows."""
        return self.pictures.get("control", SOURCE)


def admitted(session: Session, request: JobRequest, number: int) -> ControlPreview:
    """Return what the control net `number` of a job depends on, counted from 0; its model is not looked up.

    Raises Refused that names every bad field, and NotLooked if the size is that of a checkpoint not known yet.
    """
    params, at = request.params, f"controlnet.{number}"
    if number >= len(params.controlnet):
        raise refused([*request.problems, FieldError(at, "is missing", "a ControlNet with a picture")])
    source = sizes.of_source(session, request)
    size = _size(session, request, source)
    complete = params.model_copy(update={"width": size[0], "height": size[1]})
    problems: list[FieldError] = [
        *request.problems,
        *control_nets.impossible(params.controlnet[number], params, at),
        *outpainting.impossible(params, source, request.limits),
        *ranges.beyond(complete, request.limits),
        *sources.missing(session, request),
    ]
    if problems:
        raise refused(problems)
    return ControlPreview(params.controlnet[number], size, dict(_pictures(params, number)))


def _size(session: Session, request: JobRequest, source: sizes.Size | None) -> sizes.Size:
    """Return the size of the job's first pass; the catalogue is asked only if the request does not say it."""
    params, limits = request.params, request.limits
    if params.width and params.height:
        return params.width, params.height
    checkpoint = named_checkpoint(Catalogue.read(session, "checkpoint"), params.checkpoint, limits)
    return sizes.resolved(params, source, sizes.native(checkpoint), limits)


def _pictures(params: RenderParams, number: int) -> Iterator[tuple[str, str]]:
    """Yield role and field of each picture that the net's depends on."""
    unit, over = params.controlnet[number], params.img2img
    if unit.picture is not None:
        yield "control", f"controlnet.{number}.picture"
    if over is None:
        return
    how = over.repaints
    is_masked = how is not None and (unit.preprocessor == "inpaint" or how.area == "only masked")
    if unit.picture is None or is_masked:
        yield "source", SOURCE
    if is_masked and over.mask is not None:
        yield "mask", MASK
