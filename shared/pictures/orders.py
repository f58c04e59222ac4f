"""The orders of pages of pictures. Each is a walk of one index, from behind a cursor that carries the place in it.

What a picture has none of, as an enlarged one has no checkpoint, comes last: a part of its own of the walk, because
nothing is behind no value. Seeds have a part more, because the upper half of them is stored as negative numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self

from sqlalchemy import ColumnElement, Select, and_, true, tuple_

from shared.db.tables import Picture

Order = Literal["newest", "oldest", "seed", "largest", "smallest", "checkpoint"]
Values = tuple[int | str, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BEYOND: Final = 2**63  # PostgreSQL's bigint
_AREA: Final = Picture.width * Picture.height  # as in its index
_PLACE: Final = (Picture.ended_at, Picture.image_id)


@dataclass(frozen=True)
class Cursor:
    """The place behind a picture in the order of pages; `key` is what they are sorted by, None if it has none of that.

    As text it is `MICROSECONDS-ID`, with `-KEY` behind it.
    """

    ended_at: datetime
    image_id: int
    key: str | None = None

    def __str__(self) -> str:
        place = f"{(self.ended_at - _EPOCH) // _MICROSECOND}-{self.image_id}"
        return place if self.key is None else f"{place}-{self.key}"

    @classmethod
    def read(cls, given: str, order: Order) -> Self:
        """Return the cursor that a page in this order has given. Raises ValueError."""
        moment, image_id, *key = given.split("-", 2)
        if key:
            _values(key[0], order)
        return cls(_EPOCH + int(moment) * _MICROSECOND, int(image_id), key[0] if key else None)

    @classmethod
    def behind(cls, picture: Picture, order: Order) -> Self:
        """Return the place behind a picture."""
        return cls(picture.ended_at, picture.image_id, _key(picture, order))


@dataclass(frozen=True)
class _Walk:
    columns: tuple[Any, ...] = ()  # what pictures are sorted by before the time
    parts: tuple[ColumnElement[bool], ...] = (true(),)  # one behind the other
    is_backwards: bool = False


_SIZES: Final = (_AREA.is_not(None), and_(_AREA.is_(None), Picture.width.is_(None)))
_WALKS: Final[dict[Order, _Walk]] = {
    "newest": _Walk(is_backwards=True),
    "oldest": _Walk(),
    "seed": _Walk((Picture.seed,), (Picture.seed >= 0, Picture.seed < 0, Picture.seed.is_(None))),
    "largest": _Walk((_AREA, Picture.width), _SIZES, is_backwards=True),
    "smallest": _Walk((_AREA, Picture.width), _SIZES),
    "checkpoint": _Walk((Picture.checkpoint,), (Picture.checkpoint.is_not(None), Picture.checkpoint.is_(None))),
}


def walks(query: Select[Any], order: Order, cursor: Cursor | None) -> Iterator[Select[Any]]:
    """Yield the parts of a query in an order, one behind the other, from behind `cursor`. Raises ValueError."""
    walk = _WALKS[order]
    columns = (*walk.columns, *_PLACE)
    query = query.order_by(*(column.desc() if walk.is_backwards else column.asc() for column in columns))
    if cursor is None:
        yield from map(query.where, walk.parts)
        return
    values = () if cursor.key is None else _values(cursor.key, order)
    # Of the parts the last has no value; of seeds the second has those that are stored as negative numbers.
    part = int(order == "seed" and values < (0,)) if values else len(walk.parts) - 1
    here = tuple_(*columns[-len(values) - len(_PLACE) :])
    there = tuple_(*values, cursor.ended_at, cursor.image_id)
    yield query.where(walk.parts[part], here < there if walk.is_backwards else here > there)
    yield from map(query.where, walk.parts[part + 1 :])


def _key(picture: Picture, order: Order) -> str | None:
    match order:
        case "seed":
            return None if picture.seed is None else str(picture.seed)
        case "largest" | "smallest":
            return None if picture.width is None else f"{picture.width}x{picture.height}"
        case "checkpoint":
            return picture.checkpoint
    return None


def _values(key: str, order: Order) -> Values:
    """Return the values of an order's columns that a cursor's key means. Raises ValueError."""
    match order:
        case "seed":
            values: Values = (int(key),)
        case "largest" | "smallest":
            width, height = map(int, key.split("x"))
            values = (width * height, width)
        case "checkpoint":
            return (key,)
        case _:
            raise ValueError(order)
    if any(abs(int(value)) >= _BEYOND for value in values):
        raise ValueError(key)
    return values
