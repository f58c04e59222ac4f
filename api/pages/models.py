"""The page of the model files: checkpoints with their filters, files of every other kind, and what cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final, NamedTuple
from urllib.parse import urlencode

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from api.languages import _
from api.pages import status_line
from api.pages.adapters import offer_text
from api.pages.jobs import Pages
from api.pages.query_args import number
from api.security import auth
from api.services import services
from shared.db.sessions import transact
from shared.errors import Refused
from shared.models import first_scan, previews
from shared.models.catalogue import Catalogue, Entry
from shared.models.facets import FACETS, Faceted, Group
from shared.models.kinds import KINDS, Kind
from shared.models.listing import Listing, namesakes

_BESIDE: Final[tuple[Kind, ...]] = tuple(kind for kind in KINDS if kind != "checkpoint")
FILES_OF_A_PAGE: Final = 100
_FEW: Final = 20  # files of another kind beside the checkpoints
blueprint = Blueprint("models_page", __name__)


class _Section(NamedTuple):
    """The first files of one kind."""

    kind: Kind
    files: Sequence[Entry]
    total: int

    @property
    def title(self) -> str:
        return KINDS[self.kind].plural


class _Lists(NamedTuple):
    """What the page shows of the catalogue."""

    found: Faceted  # of the list in front
    pages: Pages
    files: Sequence[Entry]  # of this page
    kinds: Sequence[_Section]  # with files, and without those themselves
    beside: Sequence[_Section]
    names: Catalogue  # for what prompts call the files in sight
    is_looking: bool


@blueprint.get("/models")
def models() -> str:
    """Show the checkpoints, or those of an architecture and prediction, and some files of each other kind.

    With a kind, or words to search for, show those files alone.
    """
    settings, search = services().settings, request.args.get("search", "")[:200].strip()
    kind = next((kind for kind in KINDS if kind == request.args.get("kind", "").casefold()), None)
    is_front, first = not (kind or search), services().limits(auth.principal()).first_checkpoint
    listing = Listing(("checkpoint",) if is_front else (kind,) if kind else (), search, first)
    lists = transact(services().sessions, partial(_lists, listing=listing, is_front=is_front))
    wanted = {"kind": kind or "", "search": search, **lists.found.wanted}
    shown = (file.path for file in chain(lists.files, *(section.files for section in lists.beside)) if file.sha256)
    return render_template(
        "models.html",
        farm=status_line.line(services()),
        found=lists.found,
        kind=kind,
        search=search,
        title=KINDS[kind].plural if kind else _("Files") if search else KINDS["checkpoint"].plural,
        kinds=lists.kinds,
        checkpoints=lists.files,
        pages=lists.pages,
        address=lambda **changes: _address(wanted | changes),
        beside=lists.beside,
        with_preview=previews.paths(settings.models, shown),
        text=lambda file: offer_text(lists.names, file),
        is_looking=lists.is_looking,
        folder=settings.models.first,
    )


def _lists(session: Session, listing: Listing, *, is_front: bool) -> _Lists:
    """Return the list in front, a page of it; beside the checkpoints also the first files of each other kind."""
    found = _faceted(listing.groups(session), request.args if is_front else {})
    total = max(1, -(-found.passing // FILES_OF_A_PAGE))
    pages = Pages(min(number("page") or 1, total), total)
    files = listing.page(session, found.wanted, (pages.number - 1) * FILES_OF_A_PAGE, FILES_OF_A_PAGE)
    of_kinds = Counter[str]()
    for group in Listing().groups(session):
        of_kinds[group.kind] += group.files
    heads = Listing().heads(session, _FEW) if is_front else {}
    beside = [_Section(one, heads[one], of_kinds[one]) for one in _BESIDE if one in heads]
    in_sight = [*files, *(file for section in beside for file in section.files)]
    return _Lists(
        found=found,
        pages=pages,
        files=files,
        kinds=[_Section(one, (), of_kinds[one]) for one in KINDS if of_kinds[one]],
        beside=beside,
        names=namesakes(session, in_sight),
        is_looking=first_scan.is_awaited(session),
    )


def _faceted(groups: Sequence[Group], asked: Mapping[str, str]) -> Faceted:
    """Return the list that an address asks for; a value that no file could have counts as not given."""
    wanted = {facet: asked.get(facet, "") for facet in FACETS}
    try:
        return Faceted.of(groups, wanted)
    except Refused as refused:
        return Faceted.of(groups, wanted | {problem.field: "" for problem in refused.fields})


def _address(wanted: Mapping[str, str | int]) -> str:
    query = urlencode({name: value for name, value in wanted.items() if value})
    return f"/models?{query}" if query else "/models"
