"""Parts of the catalogue, as lists show them: the database filters, searches, orders, counts and cuts them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, literal, select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from shared.db.tables import ModelFile
from shared.models.architectures import ARCHITECTURES
from shared.models.catalogue import COLUMNS, GONE, Catalogue, Entry
from shared.models.facets import Group
from shared.models.kinds import KINDS

_LATE: Final = [name for name, facts in ARCHITECTURES.items() if not facts.starts_from_noise]
_ENTRY: Final = (*COLUMNS, ModelFile.details)
_SEARCHED: Final = (
    ModelFile.path
    + "\n"
    + func.coalesce(ModelFile.details.op("->>")("alias"), "")
    + "\n"
    + func.coalesce(ModelFile.details.op("->>")("trigger_words"), "")
)


@dataclass(frozen=True)
class Listing:
    """The files of one kind, or of all, that hold each word of a search; without those that are gone."""

    kind: str = ""  # empty: all kinds, one after the other
    search: str = ""
    first: str = ""  # name of the checkpoint that comes before the others

    def groups(self, session: Session) -> list[Group]:
        """Return how many files there are of each kind, architecture and prediction."""
        facets = ModelFile.kind, ModelFile.architecture, ModelFile.prediction
        counted = select(*facets, func.count()).where(self._is_listed()).group_by(*facets)
        return [Group(*row) for row in session.execute(counted)]

    def page(
        self, session: Session, wanted: Mapping[str, str] | None = None, offset: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return some of the files that have the wanted values of facets, by name, with all of their details.

        Those that are called `first` come first, and those that cannot start from noise last.
        """
        values = {facet: value for facet, value in (wanted or {}).items() if value}
        passing = (getattr(ModelFile, facet) == value for facet, value in values.items())
        files = select(*_ENTRY).where(self._is_listed(), *passing).order_by(*self._order())
        return _entries(session, files.offset(offset).limit(limit))

    def heads(self, session: Session, most: int) -> dict[str, list[Entry]]:
        """Return the first files of each kind."""
        place = func.row_number().over(partition_by=ModelFile.kind, order_by=self._order()[2:])
        placed = select(ModelFile.path, place.label("place")).where(self._is_listed()).subquery()
        first = select(*_ENTRY).join(placed, placed.c.path == ModelFile.path).where(placed.c.place <= most)
        heads: dict[str, list[Entry]] = {}
        for file in _entries(session, first.order_by(*self._order())):
            heads.setdefault(file.kind, []).append(file)
        return heads

    def _is_listed(self) -> ColumnElement[bool]:
        is_there = ModelFile.reason.is_distinct_from(GONE)
        is_of_kind = (ModelFile.kind == self.kind) if self.kind else literal(value=True)
        return and_(is_there, is_of_kind, *map(_holds, self.search.split()))

    def _order(self) -> list[ColumnElement[Any]]:
        """Return what files are ordered by: first by their kinds, in two columns, and then within each."""
        return [
            func.array_position(array(KINDS), ModelFile.kind).nulls_last(),
            ModelFile.kind.asc(),
            ModelFile.name != self.first,
            func.coalesce(ModelFile.architecture.in_(_LATE), False),
            func.lower(ModelFile.name).collate("C"),
            ModelFile.path.collate("C"),
        ]


def namesakes(session: Session, files: Sequence[Entry]) -> Catalogue:
    """Return a catalogue of these files and of all others of their names: enough to tell what each is called."""
    names = {name for file in files for name in file.names()}
    called = func.lower(ModelFile.name), func.lower(func.regexp_replace(ModelFile.path, "^.*/", ""))
    rows = select(*_ENTRY).where(called[0].in_(names) | called[1].in_(names)) if names else None
    return Catalogue(tuple(_entries(session, rows)) if rows is not None else ())


def _entries(session: Session, rows: Select[Any]) -> list[Entry]:
    return [Entry._make(row) for row in session.execute(rows)]


def _holds(word: str) -> ColumnElement[bool]:
    """Return the condition that a file holds a word, in any case. Not every database knows the small letter of `É`."""
    if word.isascii():
        return func.lower(_SEARCHED).contains(word.lower(), autoescape=True)
    letters = (re.escape(one) if one.isascii() else f"[{one.lower()[0]}{one.upper()[0]}]" for one in word.lower())
    return func.lower(_SEARCHED).regexp_match("".join(letters))
