"""The OpenAPI document, and a page that shows it."""

from __future__ import annotations

from typing import cast

from flask import Blueprint, Response, current_app, jsonify, render_template
from flask_openapi3 import OpenAPI

from api.http.openapi import describe
from api.services import services
from shared.admission.accepted import accepted
from shared.params.scheduling import Scheduling
from shared.params.table import parameters

blueprint = Blueprint("reference", __name__)


@blueprint.get("/openapi.json")
def document() -> Response:
    """Return the OpenAPI 3.1 document."""
    return jsonify(describe(cast("OpenAPI", current_app), services().settings.limits))


@blueprint.get("/reference")
def page() -> str:
    """Return the document as a page that loads nothing from other sites and needs no script."""
    limits = services().settings.limits
    table = {**parameters(), **parameters(Scheduling)}
    fields = [(parameter, accepted(name, limits)) for name, parameter in table.items()]
    document = describe(cast("OpenAPI", current_app), services().settings.limits)
    return render_template("reference.html", document=document, fields=fields)
