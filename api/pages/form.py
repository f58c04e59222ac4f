"""The form: filled with defaults or a past job's parameters, read, and shown again with each field's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from api import auth, use_cases
from api.listings import CheckpointBody
from api.pages import farm
from api.pages.queries import number
from api.services import Services, services
from shared.errors import FieldError, Refused
from shared.params import NATIVE_SIZE, RenderParams
from shared.samplers import SAMPLERS, SCHEDULES

RECENT_JOBS: Final = 6
LABELS: Final = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "checkpoint": "Checkpoint",
    "width": "Width",
    "height": "Height",
    "sampler": "Sampler",
    "schedule": "Schedule",
    "steps": "Steps",
    "cfg_scale": "CFG scale",
    "seed": "Seed",
    "count": "Images",
    "exact": "Exact",
}
_TEXTS: Final = frozenset({"prompt", "negative_prompt", "checkpoint", "sampler", "schedule"})
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,20}[.,][0-9]{1,20}")
_USUAL_SIZE: Final = 512  # of a checkpoint that does not say

Given = Mapping[str, str]
blueprint = Blueprint("form", __name__)


@dataclass(frozen=True)
class Choice:
    """The checkpoints to choose from; `unknown` is the one asked for where it is not among them (any more)."""

    usable: list[CheckpointBody]
    unusable: list[CheckpointBody]
    unknown: str | None
    native_size: int


@blueprint.get("/")
def new() -> str:
    """Show the form, filled with the defaults or with the parameters of the job that `?from=` names."""
    origin = number("from")
    params = RenderParams() if origin is None else use_cases.job(services(), auth.owner(), origin).params
    return _page(typed(params), origin=origin)


@blueprint.post("/jobs")
def submit() -> AnyResponse:
    """Submit what was typed and go to the job's page, or show the form again with what was wrong."""
    given = {name: request.form.get(name, "") for name in LABELS}
    try:
        submitted = use_cases.submit(services(), auth.owner(), read(given))
    except Refused as refused:
        return Response(_page(given, refused), refused.status)
    return redirect(submitted.job.links.page, 303)


def typed(params: RenderParams) -> Given:
    """Return parameters as a person would have typed them."""
    texts = {name: str(getattr(params, name)) for name in LABELS}
    sizes = {name: "" for name in ("width", "height") if getattr(params, name) == NATIVE_SIZE}
    return texts | sizes | {"cfg_scale": f"{params.cfg_scale:g}", "exact": "on" if params.exact else ""}


def read(given: Given) -> dict[str, object]:
    """Return what was typed as the door takes it: what was left empty is left out, what is no number stays as typed."""
    return {name: _value(name, text) for name, text in given.items() if text.strip()}


def _value(name: str, text: str) -> object:
    if name in _TEXTS:
        return text.replace("\r\n", "\n")
    if name == "exact":
        return text == "on"
    if _WHOLE.fullmatch(text.strip()):
        return int(text)
    return float(text.replace(",", ".")) if _DECIMAL.fullmatch(text.strip()) else text


def _page(given: Given, refused: Refused | None = None, origin: int | None = None) -> str:
    recent = use_cases.jobs(services(), auth.owner(), [], None, RECENT_JOBS).jobs
    return render_template(
        "form.html",
        given=given,
        errors=_by_field(refused),
        summary=str(refused) if refused else "",
        labels=LABELS,
        origin=origin,
        choice=_choice(services(), given["checkpoint"]),
        samplers=SAMPLERS.values(),
        schedules=SCHEDULES,
        limits=services().settings.limits,
        recent=recent,
        last_seed=recent[0].params.seed if recent else None,
        farm=farm.line(services()),
    )


def _by_field(refused: Refused | None) -> dict[str, FieldError]:
    """Return the first thing wrong with each field."""
    return {error.field: error for error in reversed(refused.fields)} if refused else {}


def _choice(farm_services: Services, wanted: str) -> Choice:
    checkpoints = use_cases.checkpoints(farm_services).checkpoints
    usable = [checkpoint for checkpoint in checkpoints if checkpoint.usable]
    chosen = next((checkpoint for checkpoint in usable if checkpoint.title == wanted), None)
    shown = chosen or (usable[0] if usable else None)
    return Choice(
        usable=usable,
        unusable=[checkpoint for checkpoint in checkpoints if not checkpoint.usable],
        unknown=wanted if wanted and chosen is None else None,
        native_size=(shown.native_size if shown else None) or _USUAL_SIZE,
    )
