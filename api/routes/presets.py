"""Presets over HTTP: parameters under names."""

from __future__ import annotations

from typing import Final

from flask import Response
from flask_openapi3.types import ResponseDict

from api.http.body import read_json
from api.http.openapi import BODY, NOT_FOUND, PRESET, answers, section
from api.http.parameters import PresetPath
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.presets import PresetBody, PresetsBody
from api.security import auth
from api.services import services
from api.use_cases import presets as use_cases

GONE: Final[ResponseDict] = {"204": None}

blueprint = section("presets", __name__, f"{API}/presets")


@blueprint.get("", responses=answers(PresetsBody, 200))
def presets() -> Response:
    """List your presets, by name."""
    return reply(use_cases.every(services(), auth.principal()))


@blueprint.get("/<string:name>", responses=answers(PresetBody, 200) | NOT_FOUND)
def preset(path: PresetPath) -> Response:
    """Get one of your presets."""
    return reply(use_cases.find(services(), auth.principal(), path.name))


@blueprint.put("/<string:name>", responses=answers(PresetBody, 200, 201) | BODY, openapi_extensions=PRESET)
def keep(path: PresetPath) -> Response:
    """Keep parameters under a name, in the place of what it held.

    The body holds parameters as for a job. Groups that hold pictures are left out, and `left_out` names them.
    """
    kept = use_cases.keep(services(), auth.principal(), path.name, read_json())
    return reply(kept.preset, 201 if kept.is_new else 200)


@blueprint.delete("/<string:name>", responses=GONE | NOT_FOUND)
def drop(path: PresetPath) -> Response:
    """Delete one of your presets."""
    use_cases.drop(services(), auth.principal(), path.name)
    return Response(status=204)
