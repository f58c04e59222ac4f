"""The page of the model files: checkpoints with their filters, VAEs, decoders, and what cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, render_template, request

from api.pages import status_line
from api.pages.jobs import Pages
from api.pages.query_args import number
from api.services import services
from api.use_cases import catalogue as use_cases
from shared.errors import Refused
from shared.models import previews
from shared.models.catalogue import Entry
from shared.models.facets import FACETS, Faceted
from shared.models.kinds import KINDS, Kind

_BESIDE: Final[dict[Kind, str]] = {
    kind: facts.plural for kind, facts in KINDS.items() if kind not in {"checkpoint", "other"}
}
CHECKPOINTS_OF_A_PAGE: Final = 100
blueprint = Blueprint("models_page", __name__)


@blueprint.get("/models")
def models() -> str:
    """Show the checkpoints, or those of an architecture and prediction, and the other model files."""
    catalogue, settings = use_cases.catalogue(services()), services().settings
    found = _faceted(catalogue.entries(first=settings.first_checkpoint), request.args)
    total = max(1, -(-len(found.files) // CHECKPOINTS_OF_A_PAGE))
    pages = Pages(min(number("page") or 1, total), total)
    first = (pages.number - 1) * CHECKPOINTS_OF_A_PAGE
    checkpoints = found.files[first : first + CHECKPOINTS_OF_A_PAGE]
    beside = {title: catalogue.entries(kind) for kind, title in _BESIDE.items()}
    shown = (file.path for file in chain(checkpoints, *beside.values()) if file.sha256)
    return render_template(
        "models.html",
        farm=status_line.line(services()),
        found=found,
        checkpoints=checkpoints,
        pages=pages,
        address=lambda **changes: _address(found.wanted | changes),
        beside=beside,
        with_preview=previews.paths(settings.models, shown),
        others=catalogue.entries("other"),
        is_looking=catalogue.awaited_since is not None,
        folder=settings.models.first,
    )


def _faceted(files: Sequence[Entry], asked: Mapping[str, str]) -> Faceted:
    """Return the files that an address asks for; a value that no file could have counts as not given."""
    wanted = {facet: asked.get(facet, "") for facet in FACETS}
    try:
        return Faceted.of(files, wanted)
    except Refused as refused:
        return Faceted.of(files, wanted | {problem.field: "" for problem in refused.fields})


def _address(wanted: Mapping[str, str | int]) -> str:
    query = urlencode({name: value for name, value in wanted.items() if value})
    return f"/models?{query}" if query else "/models"
