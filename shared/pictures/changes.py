"""What an owner does to pictures: delete, restore, favourites, tags; one, several, or all that a filter finds.

Pictures are changed some at a time, each time in a transaction of its own that waits for nobody: a row that somebody
holds is skipped, and looked at again with the next ones. So neither a claim nor a finish ever waits for ten thousand
pictures. Images are not touched.
"""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, and_, any_, func, not_, select, update
from sqlalchemy.orm import Session

from shared.accounts.scope import Scope
from shared.db.sessions import Sessions, transact
from shared.db.tables import Picture
from shared.errors import FieldError, NotFound, Refused
from shared.pictures.filters import Filter, PictureId
from shared.pictures.queries import KEPT, is_named, moment

Action = Literal["delete", "restore", "favourite", "unfavourite", "tag", "untag"]

Note = Callable[[Session, Mapping[str, int]], None]

MOST_TAGS: Final = 20
LONGEST_TAG: Final = 60
_BATCH: Final = 500
_SECONDS: Final = 20.0  # for one request; the client may ask again for the rest


@dataclass(frozen=True)
class Changed:
    """What became of a change of several pictures."""

    pictures: int
    is_all: bool  # False: there are more, and time was up or somebody held them
    deleted_at: datetime | None = None  # of a deletion: names what it deleted, for `restore`


@dataclass(frozen=True)
class Marks:
    """An owner's marks on one picture; None leaves one as it is."""

    favourite: bool | None = None
    tags: list[str] | None = None


def note_nothing(session: Session, owners: Mapping[str, int]) -> None:
    """Write nothing down."""


def tag(text: str) -> str:
    """Return a tag as it is stored. Raises Refused."""
    tidy = " ".join(unicodedata.normalize("NFC", text).split())
    if not tidy or len(tidy) > LONGEST_TAG or not tidy.isprintable():
        accepted = f"a word or a few, of at most {LONGEST_TAG} characters"
        raise Refused("That cannot be a tag.", (FieldError("tag", "is empty, too long or no text", accepted),))
    return tidy


def tags(texts: Collection[str]) -> list[str]:
    """Return tags as they are stored, each once. Raises Refused."""
    tidy = list(dict.fromkeys(map(tag, texts)))
    if len(tidy) > MOST_TAGS:
        raise Refused("Too many tags.", (FieldError("tags", f"are {len(tidy)}", f"at most {MOST_TAGS}"),))
    return tidy


def mark(session: Session, whose: Scope, wanted: PictureId, marks: Marks) -> None:
    """Make one picture a favourite or none, and replace its tags; None leaves either as it is. Raises NotFound."""
    given = {"favourite": marks.favourite, "tags": marks.tags}
    change: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    shown = and_(is_named(whose, wanted), Picture.deleted_at.is_(None))
    changed = session.execute(update(Picture).where(shown).values(change or {"favourite": Picture.favourite}))
    if not changed.rowcount:  # type: ignore[attr-defined]  # of every UPDATE
        raise NotFound(f"There is no picture {wanted}.")


def change(  # noqa: PLR0913 - which pictures, and what is done with them
    sessions: Sessions, whose: Scope, action: Action, wanted: Filter, tag: str = "", *, note: Note = note_nothing
) -> Changed:
    """Do to all pictures of a scope that are as wanted what `action` says, except to those that come meanwhile.

    `restore` takes what was deleted and is named by its ids; for a whole deletion see `restore`. `note` is called in
    each transaction with how many pictures of each owner it has changed. Raises Unavailable.
    """
    now = transact(sessions, moment)
    if wanted.ids is None and (wanted.until is None or wanted.until > now):
        wanted = replace(wanted, until=now)
    left, values = _change(whose, action, wanted, tag, now)
    done = _in_batches(sessions, left, values, note)
    return replace(done, deleted_at=now) if action == "delete" else done


def restore(sessions: Sessions, whose: Scope, deleted_at: datetime, note: Note = note_nothing) -> Changed:
    """Bring back what one deletion has deleted, as far as its files are kept. Raises Unavailable."""
    deleted = and_(_is_restorable(whose), Picture.deleted_at == deleted_at)
    return _in_batches(sessions, deleted, {"deleted_at": None}, note)


def _change(
    whose: Scope, action: Action, wanted: Filter, tag: str, now: datetime
) -> tuple[ColumnElement[bool], dict[str, Any]]:
    """Return which pictures an action has still to change, and what it writes into them."""
    shown = wanted.condition(whose)
    match action:
        case "delete":
            return shown, {"deleted_at": now}
        case "restore":
            return and_(_is_restorable(whose), wanted.named()), {"deleted_at": None}
        case "favourite":
            return and_(shown, not_(Picture.favourite)), {"favourite": True}
        case "unfavourite":
            return and_(shown, Picture.favourite), {"favourite": False}
        case "tag":
            has_room = func.cardinality(Picture.tags) < MOST_TAGS
            lacks = and_(not_(Picture.tags.contains([tag])), has_room)
            return and_(shown, lacks), {"tags": func.array_append(Picture.tags, tag)}
        case "untag":
            return and_(shown, Picture.tags.contains([tag])), {"tags": func.array_remove(Picture.tags, tag)}


def _is_restorable(whose: Scope) -> ColumnElement[bool]:
    return and_(
        whose.covers(Picture.owner),
        Picture.deleted_at > func.clock_timestamp() - KEPT,
        Picture.removed_at.is_(None),
    )


def _in_batches(sessions: Sessions, left: ColumnElement[bool], values: dict[str, Any], note: Note) -> Changed:
    """Change all rows that are left, some in each transaction; those that somebody holds are tried once more."""
    some = select(Picture.image_id).where(left).limit(_BATCH).with_for_update(skip_locked=True)
    statement = (
        update(Picture)
        .where(Picture.image_id == any_(func.array(some.scalar_subquery())))  # looked for once, whatever the plan
        .values(values)
        .returning(Picture.owner)
        .execution_options(synchronize_session=False)
    )

    def change_some(session: Session) -> int:
        owners = Counter(session.scalars(statement))
        note(session, owners)
        return owners.total()

    until, pictures = time.monotonic() + _SECONDS, 0
    while time.monotonic() < until:
        changed = transact(sessions, change_some)
        pictures += changed
        if not changed:
            break
    are_left = select(Picture.image_id).where(left).limit(1)
    return Changed(pictures, transact(sessions, lambda session: session.scalar(are_left)) is None)
