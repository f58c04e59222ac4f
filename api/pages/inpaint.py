"""The room for inpainting: one picture, its mask, and what becomes of it, round after round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flask import Blueprint, render_template

from api.languages import _
from api.pages import form, prefill
from api.pages.form_data import MASK, PICTURE
from api.pages.query_args import number, upload
from api.schemas.jobs import JobBody
from api.security import auth
from api.services import services
from api.use_cases import jobs
from shared.errors import NotFound
from shared.params.facts import FACES, GUIDANCE, HIRES, IMG2IMG, NOISE, OUTPUT, REFINER, SAMPLING, SDXL
from shared.queue.queries import Span

_RESULTS: Final = 20
_EXTENDS: Final = "img2img.outpaint"
_BESIDE: Final = {MASK, PICTURE, "img2img.denoising", "img2img.mask.content", "img2img.mask.area"}
"""The fields of the picture and its mask that stand beside it; the others are folded away."""
_FOLDED: Final = {group.name for group in (HIRES, FACES, SAMPLING, GUIDANCE, NOISE, REFINER, SDXL, OUTPUT)}
"""The groups that are folded away in the room; what is set in the others goes along unseen."""

blueprint = Blueprint("inpaint", __name__)


@blueprint.get("/inpaint")
def room() -> str:
    """Show the room as it was left, or with the picture `image` of the job `from`; beside it the job `job` of its own.

    The picture is the upload `source`; without one scripts make it an upload first.
    """
    job_id, index, source = number("from"), number("image", least=0) or 0, upload("source")
    origin = prefill.fresh()
    if job_id is not None:
        job = jobs.job(services(), auth.principal(), job_id, Span(index - 1, limit=1))
        if not job.images:
            raise NotFound(_("There is no such picture."))
        origin = prefill.of_image(job, index, "inpaint", source)
    sends = "" if job_id is None or source else f"/jobs/{job_id}/images/{index}/send"
    drawn = form.shown(origin)
    return render_template("inpaint.html", **drawn, **_laid_out(drawn), sends=sends, painting=_painting())


@blueprint.get("/inpaint/painting")
def painting() -> str:
    """Show the job `job` alone, as the room has it over the picture."""
    return render_template("painting.html", painting=_painting())


def _laid_out(drawn: Mapping[str, Any]) -> dict[str, object]:
    """Return how the room lays out the controls of a form: what it folds away, and what it carries along unseen."""
    own = {control.name for control in drawn["everyday"]} | {MASK, PICTURE}
    groups = [section for section in drawn["sections"] if section.group.name in _FOLDED or section.group is IMG2IMG]
    in_sight = own | {control.name for section in groups for control in section.controls}
    return {
        "folded": _FOLDED,
        "finer": [
            control
            for section in groups
            for control in section.controls
            if section.group is IMG2IMG and control.name not in _BESIDE and control.around != _EXTENDS
        ],
        "carried": [one for name, one in drawn["of"].items() if one.is_set and name not in in_sight],
    }


def _painting() -> JobBody | None:
    job_id = number("job")
    return None if job_id is None else jobs.job(services(), auth.principal(), job_id, Span(limit=_RESULTS))
