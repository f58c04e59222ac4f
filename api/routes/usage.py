"""Usage over HTTP: what images took of the farm."""

from __future__ import annotations

from typing import Final

from flask import Response, request

from api import spreadsheets
from api.http.openapi import answers, content, section
from api.http.parameters import UsageQuery
from api.http.responses import reply
from api.schemas.jobs import API
from api.schemas.usage import UsageBody
from api.security import auth
from api.services import services
from api.use_cases import usage as use_cases

_CSV: Final = "text/csv"
_JSON: Final = "application/json"

blueprint = section("usage", __name__, API)


@blueprint.get("/usage", responses=answers(UsageBody, 200))
def usage(query: UsageQuery) -> Response:
    """Get what your images took of the farm, by day and checkpoint; an admin asks for others' too.

    Each attempt counts, whatever came of it. Images that a card renders side by side share its seconds. With
    `Accept: text/csv` the answer is that of `usage.csv`.
    """
    if request.accept_mimetypes.best_match([_JSON, _CSV]) == _CSV:
        return _as_csv(query)
    return reply(_listed(query))


@blueprint.get("/usage.csv", responses=content(_CSV, "A line for each owner, checkpoint and day."))
def as_csv(query: UsageQuery) -> Response:
    """Get the same as comma-separated values."""
    return _as_csv(query)


def _as_csv(query: UsageQuery) -> Response:
    body = _listed(query)
    return spreadsheets.download(use_cases.as_csv(body), f"usage-{body.first}-{body.last}.csv")


def _listed(query: UsageQuery) -> UsageBody:
    return use_cases.listed(services(), auth.principal(), query.owner, query.since, query.to)
