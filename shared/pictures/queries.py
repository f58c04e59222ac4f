"""Pages of pictures, an owner's or everybody's, and what can be filtered by. They read only, and lock nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, func, select, text, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.accounts.scope import Scope
from shared.db.tables import Image, Job, Picture
from shared.errors import NotFound
from shared.jobs import stored
from shared.jobs.stored import Understood
from shared.models.model_set import hashes_in
from shared.params.codecs import split_title
from shared.params.render import RenderParams
from shared.pictures.filters import ADAPTED, TAGGED, Filter, PictureId
from shared.pictures.orders import Cursor, Order, walks
from shared.pictures.words import of_search

MOST_COUNTED: Final = 10_000
KEPT: Final = timedelta(hours=1)
"""How long a deleted picture can be restored."""
_MOST_LISTS: Final = 5000  # of tags or adapters that are looked through for what there is
_MOST_FACETS: Final = 200


def is_restorable(deleted_at: datetime | None) -> bool:
    """Return whether a picture was deleted so lately that it can be restored; None: it was not deleted."""
    return deleted_at is not None and datetime.now(UTC) - deleted_at < KEPT


# What an image changes is looked up for the rows of the page alone; a join might begin at the images.
_OF_IMAGE: Final = (Image.id == Picture.image_id,)
_Row = tuple[Picture, dict[str, Any] | None, dict[str, Any] | None]
ROWS: Final = select(
    Picture,
    select(Image.changes).where(*_OF_IMAGE).scalar_subquery(),
    select(Image.models).where(*_OF_IMAGE).scalar_subquery(),
)


@dataclass(frozen=True)
class PictureView:
    """One finished picture."""

    id: PictureId
    image_id: int
    attempt: int
    owner: str
    ended_at: datetime
    params: RenderParams  # of this picture alone
    favourite: bool
    tags: tuple[str, ...]
    deleted_at: datetime | None
    removed_at: datetime | None
    unknown: Mapping[str, Any] = field(default_factory=dict)  # parameters of a newer version, by dotted name
    hashes: Mapping[str, str] = field(default_factory=dict)  # ModelSet.hashes

    @property
    def is_restorable(self) -> bool:
        """Whether it is deleted and its files are still kept."""
        return is_restorable(self.deleted_at) and self.removed_at is None


@dataclass(frozen=True)
class PicturePage:
    """Some pictures; `next` is the cursor of the page behind them, None on the last."""

    pictures: tuple[PictureView, ...]
    next: Cursor | None


@dataclass(frozen=True)
class Facets:
    """The values that pictures of a scope can be filtered by, each sorted."""

    checkpoints: tuple[str, ...]
    samplers: tuple[str, ...]
    adapters: tuple[str, ...]
    tags: tuple[str, ...]


def page(  # noqa: PLR0913 - a page is a filter, an order and a place
    session: Session,
    whose: Scope,
    wanted: Filter,
    *,
    order: Order = "newest",
    cursor: Cursor | None = None,
    limit: int = 60,
) -> PicturePage:
    """Return up to `limit` pictures of a scope that are as wanted, from behind `cursor`."""
    rows: list[Row[*_Row]] = []
    for part in _walks(whose, wanted, order, cursor, limit + 1):
        rows += session.execute(part.limit(limit + 1 - len(rows))).all()
        if len(rows) > limit:
            break
    shown = rows[:limit]
    last = Cursor.behind(shown[-1].Picture, order) if len(rows) > limit else None
    return PicturePage(tuple(_views(session, shown)), last)


def picture(session: Session, whose: Scope, wanted: PictureId) -> PictureView:
    """Return one picture, a deleted one too. Raises NotFound."""
    views = _views(session, session.execute(ROWS.where(is_named(whose, wanted))).all())
    if not views:
        raise NotFound(f"There is no picture {wanted}.")
    return views[0]


def is_named(whose: Scope, wanted: PictureId) -> ColumnElement[bool]:
    """The condition that a row is this picture, deleted or not, and in the scope."""
    # By the image, which is there once and has an index of its own.
    found = select(Image.id).where(Image.job_id == wanted.job, Image.index == wanted.index).scalar_subquery()
    return and_(Picture.image_id == found, whose.covers(Picture.owner))


def several(session: Session, whose: Scope, ids: Collection[PictureId]) -> list[PictureView]:
    """Return those of these pictures that are there, in the order given."""
    rows = session.execute(ROWS.where(Filter(ids=tuple(ids)).condition(whose))).all()
    views = {view.id: view for view in _views(session, rows)}
    return [views[one] for one in ids if one in views]


def moment(session: Session) -> datetime:
    """Return the time by the database's clock, which says when pictures are finished."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now


def count(session: Session, whose: Scope, wanted: Filter) -> int:
    """Return how many pictures of a scope are as wanted, counted up to `MOST_COUNTED`."""
    found = select(Picture.image_id).where(wanted.condition(whose))
    some = (_of_each(found, MOST_COUNTED) if _is_merged(whose, wanted) else found).limit(MOST_COUNTED).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


# Every index of pictures begins with the owner: one probe finds the next.
_OWNERS: Final = (
    text("""
    WITH RECURSIVE found AS (
        (SELECT owner FROM pictures WHERE deleted_at IS NULL ORDER BY owner LIMIT 1)
        UNION ALL
        SELECT next.owner
        FROM found
        CROSS JOIN LATERAL (
            SELECT owner FROM pictures WHERE deleted_at IS NULL AND owner > found.owner ORDER BY owner LIMIT 1
        ) AS next
    )
    SELECT owner FROM found
""")
    .columns(Picture.owner)
    .subquery("owners")
)


def _is_merged(whose: Scope, wanted: Filter) -> bool:
    """True where pictures of everybody are found owner by owner; those that hold something have an index for all."""
    return whose.owner is None and not (of_search(wanted.words) or wanted.adapter or wanted.tags)


def _of_each(found: Select[int], most: int) -> Select[int]:
    """Return a query of the first ids that another one finds of each owner."""
    first = found.where(Picture.owner == _OWNERS.c.owner).limit(most).lateral()
    return select(first.c.image_id).select_from(_OWNERS.join(first, true()))


def _walks(whose: Scope, wanted: Filter, order: Order, cursor: Cursor | None, most: int) -> Iterator[Select[*_Row]]:
    """Yield the parts of a page: each is a walk of an index, or one for each owner, whose first pictures are merged."""
    if not _is_merged(whose, wanted):
        yield from walks(ROWS.where(wanted.condition(whose)), order, cursor)
        return
    of_one = walks(select(Picture.image_id).where(wanted.condition(whose)), order, cursor)
    for part, walk in zip(walks(ROWS, order, cursor), of_one, strict=True):
        yield part.where(Picture.image_id.in_(_of_each(walk, most)))


# One probe of the index a value, however many pictures have it.
_DISTINCT: Final = """
    WITH RECURSIVE found AS (
        (SELECT {column} AS value
         FROM pictures
         WHERE owner = :owner AND deleted_at IS NULL AND {column} IS NOT NULL
         ORDER BY {column}
         LIMIT 1)
        UNION ALL
        SELECT (SELECT {column}
                FROM pictures
                WHERE owner = :owner AND deleted_at IS NULL AND {column} > found.value
                ORDER BY {column}
                LIMIT 1)
        FROM found
        WHERE found.value IS NOT NULL
    )
    SELECT value FROM found WHERE value IS NOT NULL LIMIT :most
"""
# The same of everybody: a probe for each value of each owner.
_DISTINCT_OF_ALL: Final = """
    WITH RECURSIVE found AS (
        (SELECT owner, {column} AS value
         FROM pictures
         WHERE deleted_at IS NULL AND {column} IS NOT NULL
         ORDER BY owner, {column}
         LIMIT 1)
        UNION ALL
        SELECT next.owner, next.value
        FROM found
        CROSS JOIN LATERAL (
            SELECT owner, {column} AS value
            FROM pictures
            WHERE deleted_at IS NULL AND {column} IS NOT NULL AND (owner, {column}) > (found.owner, found.value)
            ORDER BY owner, {column}
            LIMIT 1
        ) AS next
    )
    SELECT DISTINCT value FROM found ORDER BY value LIMIT :most
"""


def facets(session: Session, whose: Scope) -> Facets:
    """Return what pictures can be filtered by: tags and adapters are those of an owner's latest pictures."""
    return Facets(
        checkpoints=checkpoints(session, whose),
        samplers=_distinct(session, whose, "sampler"),
        adapters=_held(session, whose, Picture.adapters, ADAPTED),
        tags=_held(session, whose, Picture.tags, TAGGED),
    )


def checkpoints(session: Session, whose: Scope, named: str = "") -> tuple[str, ...]:
    """Return the titles of the checkpoints of pictures; those alone that have this title, name or hash."""
    titles = _distinct(session, whose, "checkpoint")
    wanted = named.casefold()
    return tuple(title for title in titles if not wanted or wanted in _names(title))


def _distinct(session: Session, whose: Scope, column: Literal["checkpoint", "sampler"]) -> tuple[str, ...]:
    query, most = (_DISTINCT_OF_ALL if whose.owner is None else _DISTINCT), {"most": _MOST_FACETS}
    given = most if whose.owner is None else most | {"owner": whose.owner}
    return tuple(session.scalars(text(query.format(column=column)), given))


def _names(title: str) -> set[str]:
    name, short_hash = split_title(title)
    return {one.casefold() for one in (title, name, short_hash) if one}


def _held(
    session: Session, whose: Scope, column: InstrumentedAttribute[list[str]], has_any: ColumnElement[bool]
) -> tuple[str, ...]:
    having = select(column.label("values")).where(whose.covers(Picture.owner), Picture.deleted_at.is_(None), has_any)
    of_one = having.order_by(Picture.ended_at.desc(), Picture.image_id.desc())
    latest = (having if whose.owner is None else of_one).limit(_MOST_LISTS).subquery()  # of everybody's any
    values = select(func.unnest(latest.c["values"]).label("value")).distinct().order_by("value").limit(_MOST_FACETS)
    return tuple(session.scalars(values))


def _views(session: Session, rows: Sequence[Row[*_Row]]) -> list[PictureView]:
    """Return the views of pictures, except of those whose job was deleted since `rows` were read."""
    of_jobs = select(Job.id, Job.params, Job.models).where(Job.id.in_({row.Picture.job_id for row in rows}))
    jobs = {job_id: (params, models) for job_id, params, models in session.execute(of_jobs)}
    views = []
    for row, changes, own_models in rows:
        if row.job_id in jobs:
            params, models = jobs[row.job_id]
            views.append(_view(row, stored.image(params, row.index, changes), hashes_in(own_models or models)))
    return views


def _view(row: Picture, understood: Understood, hashes: Mapping[str, str]) -> PictureView:
    return PictureView(
        id=PictureId(row.job_id, row.index),
        image_id=row.image_id,
        attempt=row.attempt,
        owner=row.owner,
        ended_at=row.ended_at,
        params=understood.params,
        favourite=row.favourite,
        tags=tuple(row.tags),
        deleted_at=row.deleted_at,
        removed_at=row.removed_at,
        unknown=understood.unknown,
        hashes=hashes,
    )
