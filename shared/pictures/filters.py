"""Which pictures of an owner are wanted: what a person fills in, and the condition that it becomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Boolean, ColumnElement, and_, false, literal_column, true, tuple_

from shared.accounts.scope import Scope
from shared.db.tables import Picture
from shared.pictures import words

# To the letter as in the conditions of the indexes.
TAGGED: Final[ColumnElement[bool]] = literal_column("tags <> '{}'", Boolean)
ADAPTED: Final[ColumnElement[bool]] = literal_column("adapters <> '{}'", Boolean)


def stored_seed(seed: int) -> int:
    """Return a seed as a row holds it: the upper half of them is negative there, because a bigint is too small."""
    return seed - 2**64 if seed >= 2**63 else seed


@dataclass(frozen=True)
class PictureId:
    """A picture as people and addresses name it, `12.0`: its job, and its index there."""

    job: int
    index: int

    def __str__(self) -> str:
        return f"{self.job}.{self.index}"


@dataclass(frozen=True)
class Filter:
    """Pictures that are like this; what is left out does not matter. Deleted ones are never among them."""

    words: str = ""
    checkpoints: tuple[str, ...] | None = None  # titles; none fits where it is empty
    adapter: str = ""
    sampler: str = ""
    size: tuple[int, int] | None = None
    seed: int | None = None
    since: datetime | None = None
    until: datetime | None = None  # exclusive
    job: int | None = None
    favourites: bool = False
    tags: tuple[str, ...] = ()
    ids: tuple[PictureId, ...] | None = None  # none of these is wanted where it is empty

    def condition(self, whose: Scope) -> ColumnElement[bool]:
        """Return the condition on rows of `pictures` that somebody of this scope wants to see."""
        shown = (whose.covers(Picture.owner), Picture.deleted_at.is_(None))
        return and_(*shown, *self._of_parameters(), *self._of_picture())

    def _of_parameters(self) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions on what stands in its parameters."""
        if wanted := words.of_search(self.words):
            yield Picture.words.contains(wanted)
        if self.checkpoints is not None:
            yield Picture.checkpoint.in_(self.checkpoints)
        if self.adapter:
            yield and_(Picture.adapters.contains([self.adapter]), ADAPTED)
        if self.sampler:
            yield Picture.sampler == self.sampler
        if self.size:
            width, height = self.size
            area = Picture.width * Picture.height == width * height  # so that an order by size begins there
            yield and_(Picture.width == width, Picture.height == height, area)
        if self.seed is not None:
            yield Picture.seed == stored_seed(self.seed)

    def _of_picture(self) -> Iterator[ColumnElement[bool]]:
        """Yield the conditions on when it was made, for which job, and its owner's marks."""
        if self.since:
            yield Picture.ended_at >= self.since
        if self.until:
            yield Picture.ended_at < self.until
        if self.job is not None:
            yield Picture.job_id == self.job
        if self.favourites:
            yield Picture.favourite == true()
        if self.tags:
            yield and_(Picture.tags.contains([*self.tags]), TAGGED)
        if self.ids is not None:
            yield self.named()

    def named(self) -> ColumnElement[bool]:
        """Return the condition that a picture is one of `ids`, of any owner and whether or not it is deleted."""
        if not self.ids:
            return false()
        jobs = {one.job for one in self.ids}
        return and_(
            Picture.job_id.in_(jobs),
            tuple_(Picture.job_id, Picture.index).in_([(one.job, one.index) for one in self.ids]),
        )
