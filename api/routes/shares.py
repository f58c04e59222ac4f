"""Share links over HTTP: make one, list yours, revoke one."""

from __future__ import annotations

from typing import Final

from flask import Response, request
from flask_openapi3.types import ResponseDict

from api.http.body import read_as
from api.http.openapi import BODY, NOT_FOUND, SHARE, answers, section
from api.http.parameters import SharePath
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.shares import ShareBody, ShareRequest, SharesBody
from api.security import auth
from api.services import services
from api.use_cases import shares as use_cases

GONE: Final[ResponseDict] = {"204": None}

blueprint = section("shares", __name__, f"{API}/shares")


@blueprint.get("", responses=answers(SharesBody, 200))
def shares() -> Response:
    """List your share links that have not ended, the latest first."""
    return reply(use_cases.every(services(), auth.principal()))


@blueprint.post("", responses=answers(ShareBody, 201) | NOT_FOUND | BODY, openapi_extensions=SHARE)
def make() -> Response:
    """Make a link by which anybody sees one picture, or the pictures of one job, until its end.

    The answer has the link, this once.
    """
    base = services().settings.public_url.rstrip("/") or request.host_url.rstrip("/")
    return reply(use_cases.make(services(), auth.principal(), read_as(ShareRequest), base), 201)


@blueprint.delete("/<id:share_id>", responses=GONE | NOT_FOUND)
def revoke(path: SharePath) -> Response:
    """Revoke a link: it leads nowhere from now on."""
    use_cases.revoke(services(), auth.principal(), path.share_id)
    return Response(status=204)
