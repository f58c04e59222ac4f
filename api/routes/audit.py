"""The audit log over HTTP."""

from __future__ import annotations

from flask import Response

from api.http.openapi import answers, section
from api.http.parameters import AuditQuery
from api.http.responses import reply
from api.schemas.audit import AuditBody
from api.schemas.jobs import API
from api.services import services
from api.use_cases import audit as use_cases

blueprint = section("audit", __name__, f"{API}/audit")


@blueprint.get("", responses=answers(AuditBody, 200))
def audit(query: AuditQuery) -> Response:
    """List who did what with the farm, the latest first: of the last year, for admins.

    It has keys, webhooks and share links that were made or ended, workers that were paused, and what people did with
    jobs and pictures of other owners.
    """
    return reply(use_cases.listed(services(), query.owner, query.action, query.cursor, query.limit))
