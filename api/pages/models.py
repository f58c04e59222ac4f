"""The page of the model files: checkpoints with their filters, files of every other kind, and what cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple, Self
from urllib.parse import urlencode

from flask import Blueprint, render_template, request

from api.pages import status_line
from api.pages.adapters import offer_text
from api.pages.jobs import Pages
from api.pages.query_args import number
from api.services import services
from api.use_cases import catalogue as use_cases
from shared.errors import Refused
from shared.models import previews
from shared.models.catalogue import Entry
from shared.models.facets import FACETS, Faceted, searched
from shared.models.kinds import KINDS, Kind

_BESIDE: Final[tuple[Kind, ...]] = tuple(kind for kind in KINDS if kind not in {"checkpoint", "other"})
CHECKPOINTS_OF_A_PAGE: Final = 100
_FEW: Final = 20  # files of another kind beside the checkpoints
blueprint = Blueprint("models_page", __name__)


class _Section(NamedTuple):
    """The files of one kind, or the first of them."""

    kind: Kind
    title: str
    files: Sequence[Entry]
    total: int

    @classmethod
    def of(cls, kind: Kind, files: Sequence[Entry], most: int) -> Self:
        return cls(kind, KINDS[kind].plural, use_cases.detailed(services(), files[:most]), len(files))


@blueprint.get("/models")
def models() -> str:
    """Show the checkpoints, or those of an architecture and prediction, and some files of each other kind.

    With a kind, or words to search for, show those files alone.
    """
    settings, search = services().settings, request.args.get("search", "")[:200].strip()
    catalogue = use_cases.catalogue(services(), with_trigger_words=bool(search))
    kind = next((kind for kind in KINDS if kind == request.args.get("kind", "").casefold()), None)
    if kind or search:
        listed = catalogue.entries(kind, first=settings.first_checkpoint) if kind else catalogue.all_entries()
        found = _faceted(searched(listed, search), {})
    else:
        found = _faceted(catalogue.entries(first=settings.first_checkpoint), request.args)
    total = max(1, -(-len(found.files) // CHECKPOINTS_OF_A_PAGE))
    pages = Pages(min(number("page") or 1, total), total)
    first = (pages.number - 1) * CHECKPOINTS_OF_A_PAGE
    wanted = {"kind": kind or "", "search": search, **found.wanted}
    checkpoints = use_cases.detailed(services(), found.files[first : first + CHECKPOINTS_OF_A_PAGE])
    beside = [] if kind or search else [_Section.of(one, catalogue.entries(one), _FEW) for one in _BESIDE]
    shown = (file.path for file in chain(checkpoints, *(section.files for section in beside)) if file.sha256)
    return render_template(
        "models.html",
        farm=status_line.line(services()),
        found=found,
        kind=kind,
        search=search,
        title=KINDS[kind].plural if kind else "Files" if search else KINDS["checkpoint"].plural,
        kinds=[_Section.of(one, files, 0) for one in KINDS if (files := catalogue.entries(one))],
        checkpoints=checkpoints,
        pages=pages,
        address=lambda **changes: _address(wanted | changes),
        beside=beside,
        with_preview=previews.paths(settings.models, shown),
        others=[] if kind or search else catalogue.entries("other"),
        text=lambda file: offer_text(catalogue, file),
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
