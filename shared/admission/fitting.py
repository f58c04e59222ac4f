"""Parameters that come from elsewhere, such as a picture's file: what of them would be admitted here."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from shared import door
from shared.errors import FieldError, NotLooked, Refused
from shared.infotext import places


class Fit(NamedTuple):
    """Parameters that can be submitted, and notes of what was left out for that."""

    params: dict[str, Any]
    left_out: tuple[str, ...]


def fit(session: Session, given: Mapping[str, Any], asker: door.Asker) -> Fit:
    """Return `given` without the fields that the door refuses: what this farm has not, or will not do."""
    params, notes = deepcopy(dict(given)), []
    while refused := _refused(session, params, asker):
        removed = [one for one in refused if places.remove(params, one.field.split("."))]
        if not removed:  # it is not what was given that is wrong: a farm without checkpoints refuses everything
            break
        notes += [f"{one.field}: {one.message}" for one in removed]
    return Fit(params, tuple(notes))


def _refused(session: Session, params: Mapping[str, Any], asker: door.Asker) -> tuple[FieldError, ...]:
    try:
        door.admit(session, params, asker)
    except Refused as refused:
        return refused.fields
    except NotLooked:  # nothing is known to be wrong
        return ()
    return ()
