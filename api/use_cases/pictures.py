"""The use cases of the gallery: find pictures, mark them, delete and restore them, fetch several as a zip.

As in `api.use_cases.jobs` each function opens its own transactions, and anything of another owner is NotFound, except
for an admin who names it: what a filter finds is one's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy.orm import Session

from api.schemas.jobs import EXTENSIONS
from api.schemas.pictures import (
    ChangedBody,
    FacetsBody,
    PictureAction,
    PictureBody,
    PictureChange,
    PictureChoice,
    PictureFilter,
    PicturePageBody,
    PicturesQuery,
    picture_id,
)
from api.services import Services
from api.use_cases import images
from shared.accounts import audit
from shared.accounts.audit import Action
from shared.accounts.principal import EVERYBODY, Principal
from shared.accounts.scope import Scope
from shared.db.sessions import transact
from shared.errors import Conflict, FieldError, Refused, Unavailable
from shared.media.storage import key
from shared.pictures import changes, queries, reading
from shared.pictures.changes import Marks
from shared.pictures.filters import Filter, PictureId
from shared.pictures.queries import PictureView
from shared.quantities import counted

MOST_OF_A_ZIP: Final = 1000
_TAGGING: Final = frozenset({"tag", "untag"})
_NOTED: Final[Mapping[str, Action]] = {"delete": Action.PICTURES_DELETED, "restore": Action.PICTURES_RESTORED}
"""Actions by their deeds; every other one marks pictures."""


def page(services: Services, who: Principal, asked: PicturesQuery) -> PicturePageBody:
    """Return a page of one's own pictures, or, for an admin, of a named owner's or everybody's. Raises Forbidden."""
    with suppress(Unavailable):  # a database that takes no changes still has the others
        transact(services.sessions, reading.read)  # what has come since the chore's last run is found as well

    whose = who.names(asked.owner or None)

    def found(session: Session) -> queries.PicturePage:
        wanted = _filter(session, whose, asked)
        return queries.page(session, whose, wanted, order=asked.order, cursor=asked.place, limit=asked.limit)

    return PicturePageBody.from_page(transact(services.sessions, found))


def moment(services: Services) -> datetime:
    """Return the time by the clock that says when pictures are finished."""
    return transact(services.sessions, queries.moment)


def facets(services: Services, who: Principal, owner: str = "") -> FacetsBody:
    """Return what one's own pictures can be filtered by, or, for an admin, a named owner's or everybody's.

    Raises Forbidden.
    """
    whose = who.names(owner or None)
    return FacetsBody.from_facets(transact(services.sessions, lambda session: queries.facets(session, whose)))


def count(services: Services, who: Principal, asked: PictureFilter) -> int:
    """Return how many pictures are as asked for, counted up to `queries.MOST_COUNTED`. Raises Forbidden."""
    whose = who.names(asked.owner or None)
    return transact(services.sessions, lambda session: queries.count(session, whose, _filter(session, whose, asked)))


def picture(services: Services, who: Principal, wanted: PictureId) -> PictureBody:
    """Return one picture, a deleted one too. Raises NotFound."""
    view = transact(services.sessions, lambda session: queries.picture(session, who.scope, wanted))
    return PictureBody.from_view(view)


def several(services: Services, who: Principal, ids: Sequence[PictureId]) -> list[PictureBody]:
    """Return those of these pictures that are there, in the order given."""
    views = transact(services.sessions, lambda session: queries.several(session, who.scope, ids))
    return [PictureBody.from_view(view) for view in views]


def mark(services: Services, who: Principal, wanted: PictureId, change: PictureChange) -> PictureBody:
    """Make a picture a favourite or none, and replace its tags. Raises NotFound, Refused."""
    marks = Marks(change.favourite, None if change.tags is None else changes.tags(change.tags))

    def mark_it(session: Session) -> PictureView:
        changes.mark(session, who.scope, wanted, marks)
        view = queries.picture(session, who.scope, wanted)
        if view.owner != who.owner:
            audit.note(session, who, Action.PICTURES_MARKED, f"picture {wanted}", whose=view.owner)
        return view

    return PictureBody.from_view(transact(services.sessions, mark_it))


def act(services: Services, who: Principal, asked: PictureAction) -> ChangedBody:
    """Do to pictures what `asked` says. Raises Refused, Unavailable.

    It takes bounded time: `is_all` is false where more is left to be done.
    """
    action = _NOTED.get(asked.action)
    detail = "" if action else " ".join(filter(None, (asked.action, asked.tag)))
    note = partial(_note, who=who, action=action or Action.PICTURES_MARKED, detail=detail)
    if asked.undo is not None:
        if asked.action != "restore" or asked.ids is not None or asked.filter is not None:
            problem = FieldError("undo", "is only for restoring a whole deletion", "restore, without ids and filter")
            raise Refused("That cannot be undone so.", (problem,))
        return ChangedBody.from_changed(changes.restore(services.sessions, who.scope, asked.undo, note))
    if (asked.tag != "") != (asked.action in _TAGGING):
        problem = FieldError("tag", "does not go with the action", "a tag with tag and untag, none with others")
        raise Refused("The tag and the action do not go together.", (problem,))
    if asked.action == "restore" and asked.filter is not None:
        problem = FieldError("filter", "finds no deleted pictures", "`ids`, or `undo` of a deletion")
        raise Refused("These cannot be restored so.", (problem,))
    tag = changes.tag(asked.tag) if asked.tag else ""
    wanted = _wanted(services, who, asked)
    whose = _whose(who, asked)
    return ChangedBody.from_changed(changes.change(services.sessions, whose, asked.action, wanted, tag, note=note))


def archive(services: Services, who: Principal, asked: PictureChoice) -> Iterator[tuple[str, bytes]]:
    """Return the names and bytes of these pictures, or of all that are as asked for, each read when it is needed.

    Raises Refused for too many, Conflict for none; NotFound and StorageAway as `images.archive` does.
    """
    wanted = _wanted(services, who, asked)
    whose = _whose(who, asked)
    page = transact(services.sessions, lambda session: queries.page(session, whose, wanted, limit=MOST_OF_A_ZIP))
    if page.next:
        accepted = f"at most {MOST_OF_A_ZIP:,} pictures"
        raise Refused("Too many pictures for one file.", (FieldError("filter", "finds more", accepted),))
    named = [view for view in page.pictures if "format" not in view.unknown]
    if not named:
        raise Conflict("There is no such picture.")
    keys = {
        f"{view.id.job}-{view.id.index:04}.{EXTENSIONS[view.params.format]}": key(
            view.id.job, view.id.index, view.attempt, "picture", view.params.format
        )
        for view in named
    }
    return images.opened(services.storage, keys)


def _wanted(services: Services, who: Principal, asked: PictureChoice) -> Filter:
    """Return what a body asks for: pictures by their ids, or those of a filter. Raises Refused."""
    if asked.ids is not None and asked.filter is None:
        return Filter(ids=tuple(map(picture_id, asked.ids)))
    if asked.filter is None or asked.ids is not None:
        problem = FieldError("ids", "is missing, or came with a filter", "either `ids` or `filter`")
        raise Refused("Which pictures are meant is not clear.", (problem,))
    given = asked.filter

    def read(session: Session) -> Filter:
        reading.read(session)
        return _filter(session, _named(who, given.owner), given)

    return transact(services.sessions, read)


def _note(session: Session, owners: Mapping[str, int], who: Principal, action: Action, detail: str) -> None:
    """Write down what is done with pictures of others."""
    for owner, pictures in sorted(owners.items()):
        if owner != who.owner:
            audit.note(session, who, action, counted(pictures, "picture"), whose=owner, detail=detail)


def _whose(who: Principal, asked: PictureChoice) -> Scope:
    """Return among whose pictures to look: of what is not named one by one, those of one owner alone."""
    return who.scope if asked.filter is None else _named(who, asked.filter.owner)


def _named(who: Principal, owner: str) -> Scope:
    """Return whose pictures all of a filter are: one owner's. Raises Forbidden, Refused."""
    if owner == EVERYBODY:
        accepted = "the name of an owner, or nothing for yourself; or `ids`"
        raise Refused("All of a filter are those of one owner.", (FieldError("owner", "is not one owner", accepted),))
    return who.names(owner or None)


def _filter(session: Session, whose: Scope, asked: PictureFilter) -> Filter:
    width, _, height = asked.size.partition("x")
    return Filter(
        words=asked.words,
        checkpoints=queries.checkpoints(session, whose, asked.checkpoint) if asked.checkpoint else None,
        adapter=asked.adapter,
        sampler=asked.sampler,
        size=(int(width), int(height)) if asked.size else None,
        seed=asked.seed,
        since=asked.since,
        until=asked.until,
        job=asked.job,
        favourites=asked.favourites,
        tags=tuple(map(changes.tag, asked.tag)),
    )
