"""Whose jobs and pictures a statement finds: those of one owner, or everybody's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import InstrumentedAttribute

OWNED: Final = "(owner = :whose OR CAST(:whose AS text) IS NULL)"
"""The condition of a statement that is written out: its rows have the scope's owner, given as `whose`."""


@dataclass(frozen=True)
class Scope:
    """Of others than `owner` a statement finds nothing, as if it did not exist; None: it finds everybody's."""

    owner: str | None

    def covers(self, owner: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """Return the condition that a row's owner is one of the scope's."""
        return true() if self.owner is None else owner == self.owner

    def holds(self, owner: str) -> bool:
        """True of a row that has been read if its owner is one of the scope's."""
        return self.owner in (None, owner)


EVERYBODYS: Final = Scope(None)
"""For the farm's own chores, and for people who may see everything."""
