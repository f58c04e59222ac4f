"""What the form offers to write into prompts: LoRAs and hypernetworks by tags, embeddings by their names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from api.security import auth
from api.services import services
from api.use_cases import catalogue as use_cases
from shared.admission.adapters import misfit
from shared.admission.checkpoints import named_checkpoint
from shared.db.sessions import transact
from shared.errors import NotLooked, Refused
from shared.models.catalogue import Catalogue, Entry
from shared.models.details import Details
from shared.models.kinds import KIND_OF_TAG, KINDS, Kind
from shared.models.listing import Listing, namesakes

SHOWN: Final = 50
_TAGS: Final[dict[Kind, str]] = {kind: tag for tag, kind in KIND_OF_TAG.items()}
_KINDS: Final[tuple[Kind, ...]] = ("lora", "hypernetwork", "embedding")
_WEIGHTS: Final[dict[Kind, str]] = {"lora": "0.8", "hypernetwork": "1", "embedding": "1"}
"""The weight that a file is offered with."""
_SIGNS: Final = frozenset(":<>#=")  # that end a name in a tag, or change what it is

blueprint = Blueprint("adapters", __name__)


@dataclass(frozen=True)
class Offer:
    """One file that a prompt can name."""

    file: Entry
    name: str  # in a prompt
    unfit: str  # why it cannot be used with the chosen checkpoint; empty: it can

    @property
    def kind(self) -> str:
        """The beginning of its tag; empty for a word without one."""
        return _TAGS.get(self.file.kind, "")

    @property
    def label(self) -> str:
        return KINDS[self.file.kind].label

    @property
    def weight(self) -> str:
        return _WEIGHTS[self.file.kind]

    @property
    def text(self) -> str:
        """What a prompt says to use it."""
        return f"<{self.kind}:{self.name}:{self.weight}>" if self.kind else self.name

    @property
    def details(self) -> Details:
        return self.file.details


@dataclass(frozen=True)
class Offers:
    """The first files that hold the words of a search, and how many there are."""

    shown: list[Offer]
    found: int
    total: int  # whatever is searched for


@blueprint.get("/adapters")
def adapters() -> str:
    """Show the files that hold the words of a search as a part of the form, those for the checkpoint first."""
    search, checkpoint = request.args.get("search", "")[:200].strip(), request.args.get("checkpoint", "")[:500]
    catalogue = use_cases.offered(services(), auth.principal(), ("checkpoint",), [checkpoint])
    return render_template("parts/adapters_list.html", adapters=offers(catalogue, search, checkpoint))


def offers(catalogue: Catalogue, search: str = "", checkpoint: str = "") -> Offers:
    """Return what a prompt for a checkpoint can name; those that fit it come first.

    Of `catalogue` only the checkpoints are needed: what is shown is read from the database.
    """
    base = _checkpoint(catalogue, checkpoint)
    return transact(services().sessions, partial(_offers, listing=Listing(_KINDS, search, base=base, usable=True)))


def _offers(session: Session, listing: Listing) -> Offers:
    total = Listing(_KINDS, usable=True).count(session)
    shown = listing.page(session, limit=SHOWN)
    names = namesakes(session, shown)
    offered = [
        Offer(one, name_in_prompts(names, one), misfit(one, listing.base) if listing.base else "") for one in shown
    ]
    return Offers(offered, listing.count(session) if listing.search else total, total)


def offer_text(catalogue: Catalogue, file: Entry) -> str:
    """Return what a prompt says to use a file; empty: no prompt names files of its kind, or it cannot be used."""
    is_named = file.usable and file.kind in _KINDS
    return Offer(file, name_in_prompts(catalogue, file), "").text if is_named else ""


def name_in_prompts(catalogue: Catalogue, file: Entry) -> str:
    """Return the shortest name that a prompt can have for a file, and that no other file has."""
    if file.kind not in _TAGS:
        return file.name
    names = (name for name in _names(file) if _SIGNS.isdisjoint(name))
    meant = ((name, catalogue.only(name, file.kind)) for name in names)
    return next((name for name, one in meant if one and one.sha256 == file.sha256), (file.sha256 or "")[:10])


def _names(file: Entry) -> Iterator[str]:
    """Yield the name of a file, then longer and longer ends of its path."""
    parts = file.stem.split("/")
    yield from ("/".join(parts[first:]) for first in reversed(range(len(parts))))
    yield file.title


def _checkpoint(catalogue: Catalogue, title: str) -> Entry | None:
    try:
        return named_checkpoint(catalogue, title, services().limits(auth.principal()))
    except (Refused, NotLooked):
        return None
