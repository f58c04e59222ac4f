"""Limits over HTTP: one's own with what is left, and, for an admin, those of owners."""

from __future__ import annotations

from flask import Response

from api.http.body import read_json
from api.http.openapi import BODY, LIMITS_CHANGE, answers, section
from api.http.parameters import OwnerPath
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.limits import LimitsBody, OwnersLimitsBody, SetLimitsBody
from api.security import auth
from api.services import services
from api.use_cases import limits as use_cases

blueprint = section("limits", __name__, f"{API}/limits")


@blueprint.get("", responses=answers(LimitsBody, 200))
def limits() -> Response:
    """List your limits: what is set, what of it is used and left, and when it renews."""
    return reply(use_cases.own(services(), auth.principal()))


@blueprint.get("/owners", responses=answers(OwnersLimitsBody, 200))
def owners() -> Response:
    """List what is set for owners, as an admin."""
    return reply(use_cases.every(services()))


@blueprint.patch(
    "/owners/<string:owner>", responses=answers(SetLimitsBody, 200) | BODY, openapi_extensions=LIMITS_CHANGE
)
def change(path: OwnerPath) -> Response:
    """Set limits of an owner, as an admin; limits that the body does not name stay as they are."""
    return reply(use_cases.change(services(), auth.principal(), path.owner, read_json()))


@blueprint.delete("/owners/<string:owner>", responses=answers(SetLimitsBody, 200))
def clear(path: OwnerPath) -> Response:
    """Give an owner the limits of the role alone, as an admin."""
    return reply(use_cases.clear(services(), auth.principal(), path.owner))
