"""Parts of the catalogue, as lists show them: the database filters, searches, orders, counts and cuts them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, not_, or_, select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from shared.db.tables import ModelFile
from shared.models.architectures import ARCHITECTURES
from shared.models.catalogue import COLUMNS, GONE, SHORT, Catalogue, Entry, name_in
from shared.models.facets import Group
from shared.models.kinds import KINDS

_NUL: Final = "\0"  # PostgreSQL stores it in no text, and refuses a query that holds it
_LATE: Final = [name for name, facts in ARCHITECTURES.items() if not facts.starts_from_noise]
_ENTRY: Final = (*COLUMNS, ModelFile.details)
_LABEL: Final = case({name: facts.label for name, facts in ARCHITECTURES.items()}, value=ModelFile.architecture)
_SEARCHED: Final = func.concat_ws(
    "\n",
    ModelFile.path,
    ModelFile.name + " [" + func.left(ModelFile.sha256, SHORT) + "]",
    func.coalesce(_LABEL, ModelFile.architecture),
    ModelFile.details.op("->>")("alias"),
    ModelFile.details.op("->>")("trigger_words"),
)
"""The text that a search looks through: what lists show of a file, and how else people know it."""


@dataclass(frozen=True)
class Listing:
    """The files of some kinds, or of all, that hold each word of a search; without those that are gone."""

    kinds: tuple[str, ...] = ()  # empty: all; one after the other
    search: str = ""
    first: str = ""  # name, title or path of the checkpoint that comes before the others
    base: Entry | None = None  # the checkpoint that adapters are for: those that do not fit it come last
    usable: bool | None = None  # those that can be used, or those that cannot; None: all
    checkpoints: frozenset[str] | None = None  # paths: of checkpoints these alone; None: all

    def groups(self, session: Session) -> list[Group]:
        """Return how many files there are of each kind, architecture and prediction."""
        facets = ModelFile.kind, ModelFile.architecture, ModelFile.prediction
        counted = select(*facets, func.count()).where(self._is_listed()).group_by(*facets)
        return [Group(*row) for row in session.execute(counted)]

    def count(self, session: Session) -> int:
        """Return how many files there are."""
        return session.scalar(select(func.count()).select_from(ModelFile).where(self._is_listed())) or 0

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
        place = func.row_number().over(partition_by=ModelFile.kind, order_by=self._order())
        placed = select(ModelFile.path, place.label("place")).where(self._is_listed()).subquery()
        first = select(*_ENTRY).join(placed, placed.c.path == ModelFile.path).where(placed.c.place <= most)
        heads: dict[str, list[Entry]] = {}
        for file in _entries(session, first.order_by(*self._order())):
            heads.setdefault(file.kind, []).append(file)
        return heads

    def _is_listed(self) -> ColumnElement[bool]:
        is_there = ModelFile.reason.is_distinct_from(GONE)
        is_of_kind = ModelFile.kind.in_(self.kinds) if self.kinds else literal(value=True)
        is_in_state = literal(value=True) if self.usable is None else ModelFile.usable == self.usable
        is_allowed = literal(value=True) if self.checkpoints is None else ModelFile.path.in_(self.checkpoints)
        is_open = or_(ModelFile.kind != "checkpoint", is_allowed)
        return and_(is_there, is_of_kind, is_in_state, is_open, *map(_holds, self.search.split()))

    def _order(self) -> list[ColumnElement[Any]]:
        """Return what files are ordered by: those that do not fit come last, and then by their kinds."""
        return [
            *([_is_misfit(self.base)] if self.base else []),
            func.array_position(array(KINDS), ModelFile.kind).nulls_last(),
            ModelFile.kind.asc(),
            *([not_(_is_called((self.first,)))] if self.first else []),
            func.coalesce(ModelFile.architecture.in_(_LATE), False),
            func.lower(ModelFile.name).collate("C"),
            ModelFile.path.collate("C"),
        ]


def offered(session: Session, listing: Listing, most: int, named: Iterable[str] = ()) -> Catalogue:
    """Return a catalogue of the first files of each kind, usable and unusable, and of all that have one of the names.

    A name is that of a file, its title or its path.
    """
    listings = [replace(listing, usable=usable) for usable in (True, False)]
    heads = [file for one in listings for files in one.heads(session, most).values() for file in files]
    files = {file.path: file for file in (*heads, *_called(session, named))}
    return Catalogue.of(session, files.values())


def namesakes(session: Session, files: Sequence[Entry]) -> Catalogue:
    """Return a catalogue of these files and of all others of their names: enough to tell what each is called."""
    names = {name for file in files for name in file.spellings()}
    return Catalogue(tuple(_called(session, names)))


def _called(session: Session, texts: Iterable[str]) -> list[Entry]:
    """Return the files that have one of these names, titles or paths, in any case."""
    known = [text for text in texts if text and _NUL not in text]
    return _entries(session, select(*_ENTRY).where(_is_called(known))) if known else []


def _is_called(texts: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a file has one of these names, titles or paths, in any case.

    As it is written too, because not every database knows the small letter of `É`, and none knows `ss` for `ß`.
    """
    spellings = {one for text in texts for one in (text, text.lower(), text.casefold())}
    names = {name for one in spellings for name in (one, name_in(one))}
    file_name = func.regexp_replace(ModelFile.path, "^.*/", "")
    columns = ModelFile.name, ModelFile.path, file_name
    return or_(*(spelling.in_(names) for one in columns for spelling in (one, func.lower(one))))


def _is_misfit(base: Entry) -> ColumnElement[bool]:
    """Return the condition that a file does not fit a checkpoint, as `shared.admission.adapters.misfit` finds it."""
    wanted = base.details
    sizes = {"width": wanted.width, "context": wanted.context}
    others = [ModelFile.details.op("->>")(name) != str(size) for name, size in sizes.items() if size]
    if base.architecture:
        others.append(ModelFile.architecture != base.architecture)
    return or_(literal(value=False), *(func.coalesce(other, False) for other in others))


def _entries(session: Session, rows: Select[Any]) -> list[Entry]:
    return [Entry._make(row) for row in session.execute(rows)]


def _holds(word: str) -> ColumnElement[bool]:
    """Return the condition that a file holds a word, in any case. Not every database knows the small letter of `É`."""
    if _NUL in word:
        return literal(value=False)
    if word.isascii():
        return func.lower(_SEARCHED).contains(word.lower(), autoescape=True)
    letters = (re.escape(one) if one.isascii() else f"[{one.lower()[0]}{one.upper()[0]}]" for one in word.lower())
    return func.lower(_SEARCHED).regexp_match("".join(letters))
