"""Owners over HTTP: everything that one has is deleted."""

from __future__ import annotations

from flask import Response

from api.http.openapi import answers, section
from api.http.parameters import OwnerPath
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.owners import WipedBody
from api.security import auth
from api.services import services
from api.use_cases import owners as use_cases

blueprint = section("owners", __name__, f"{API}/owners")


@blueprint.delete("/<string:owner>", responses=answers(WipedBody, 200))
def wipe(path: OwnerPath) -> Response:
    """Delete everything of an owner, as an admin.

    It is keys, jobs, pictures, source pictures, presets, webhooks, share links, limits and usage. Keys open nothing a
    second after the first request. Each request deletes some jobs; ask again until none is left. Keys in
    `FARM_API_KEYS` stay.
    """
    return reply(use_cases.wipe(services(), auth.principal(), path.owner))
