"""Presets on the form: filled in, kept and deleted by its own buttons, with what else was typed kept."""

from __future__ import annotations

from dataclasses import replace

from flask import Blueprint, Response, flash, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from api.languages import _
from api.pages import prefill
from api.pages.form import drawn, posted
from api.pages.form_data import read, typed
from api.pages.prefill import Origin
from api.security import auth
from api.services import services
from api.use_cases import presets as use_cases
from shared.admission.parse import parse
from shared.errors import NotFound, Refused

blueprint = Blueprint("presets_pages", __name__, url_prefix="/presets")


@blueprint.post("/fill")
def fill() -> AnyResponse:
    """Show the form as a preset has it; one press brings back what was typed."""
    before, who = posted(), auth.principal()
    try:
        preset = use_cases.find(services(), who, request.form.get("preset", ""))
    except NotFound:
        flash(_("Choose a preset first."))
        return Response(drawn(Origin(before)))
    params = parse(preset.params, who.owner, services().settings.limits).params
    filled = replace(
        prefill.fresh(),
        given=typed(params.model_dump()),
        file=_("the preset “%(name)s”", name=preset.name),
        before=before,
    )
    return Response(drawn(filled))


@blueprint.post("/keep")
def keep() -> AnyResponse:
    """Keep what was typed under a name, and show the form as it was."""
    before, name = posted(), request.form.get("preset_name", "").strip()
    try:
        kept = use_cases.keep(services(), auth.principal(), name, read(before))
    except Refused as refused:
        return Response(drawn(Origin(before), refused), refused.status)
    flash(_("Kept as the preset “%(name)s”.", name=name))
    if kept.preset.left_out:
        flash(_("A preset holds no pictures. Left out: %(which)s.", which=", ".join(kept.preset.left_out)))
    return Response(drawn(Origin(before)))


@blueprint.post("/delete")
def delete() -> AnyResponse:
    """Delete the chosen preset, and show the form as it was."""
    name = request.form.get("preset", "")
    try:
        use_cases.drop(services(), auth.principal(), name)
        flash(_("Deleted the preset “%(name)s”.", name=name))
    except NotFound:
        flash(_("Choose a preset first."))
    return Response(drawn(Origin(posted())))


@blueprint.get("/<any(fill,keep,delete):way>")
def nothing(way: str) -> AnyResponse:  # noqa: ARG001 - in the address
    """Redirect to the form: the address alone shows nothing."""
    return redirect("/", 303)
