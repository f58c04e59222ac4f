"""Presets: parameters that an owner keeps under a name, to submit them again with other words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Boolean, delete, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db import tables
from shared.errors import FieldError, NotFound, Refused
from shared.params.render import RenderParams

MOST: Final = 200  # of an owner
LONGEST_NAME: Final = 60  # characters
LARGEST: Final = 2**16  # characters of the parameters of one as JSON: all are listed at once
_NAMES: Final = f"1 to {LONGEST_NAME} characters that can be seen, without /"


class Preset(NamedTuple):
    """Parameters under a name; those at their defaults are left out."""

    name: str
    params: dict[str, Any]
    changed_at: datetime


def every(session: Session, owner: str) -> Sequence[Preset]:
    """Return an owner's presets by name."""
    found = session.execute(_read(owner).order_by(func.lower(tables.Preset.name), tables.Preset.name))
    return [Preset(*row) for row in found]


def find(session: Session, owner: str, name: str) -> Preset:
    """Return one of an owner's presets. Raises NotFound."""
    row = session.execute(_read(owner).where(tables.Preset.name == name)).one_or_none() if _is_name(name) else None
    if row is None:
        raise _missing(name)
    return Preset(*row)


def keep(session: Session, owner: str, name: str, params: Mapping[str, Any]) -> bool:
    """Keep parameters under a name, in the place of what it held; return whether the name is new.

    Raises Refused if the name cannot be one, the parameters are too long, or the owner has too many.
    """
    if not _is_name(name):
        raise _refused("name", "cannot be the name of a preset", _NAMES)
    if name in {".", ".."}:
        raise _refused("name", "means a folder in an address", _NAMES)
    if (size := len(json.dumps(params, ensure_ascii=False))) > LARGEST:
        raise _refused("body", f"is {size:,} characters long", f"at most {LARGEST:,} characters of parameters")
    others = select(func.count()).where(tables.Preset.owner == owner, tables.Preset.name != name)
    if (session.scalar(others) or 0) >= MOST:
        raise _refused("name", f"would be one preset more than {MOST}", "the name of one that there is, or delete one")
    values = {"params": dict(params), "changed_at": func.clock_timestamp()}
    kept = (
        insert(tables.Preset)
        .values(owner=owner, name=name, **values)
        .on_conflict_do_update(index_elements=["owner", "name"], set_=values)
        .returning(literal_column("xmax = 0", Boolean))  # true for a row that was not there
    )
    return bool(session.scalar(kept))


def drop(session: Session, owner: str, name: str) -> None:
    """Delete one of an owner's presets. Raises NotFound."""
    gone = delete(tables.Preset).where(tables.Preset.owner == owner, tables.Preset.name == name)
    if not _is_name(name) or session.scalar(gone.returning(tables.Preset.name)) is None:
        raise _missing(name)


def lasting(params: RenderParams) -> tuple[dict[str, Any], list[str]]:
    """Return what a preset keeps of parameters, and what it leaves out: groups with pictures, which are deleted some
    day.
    """
    stored = params.model_dump(mode="json", exclude_defaults=True)
    left_out = sorted({name.partition(".")[0] for name in params.pictures})
    return {name: value for name, value in stored.items() if name not in left_out}, left_out


def _is_name(name: str) -> bool:
    """Return whether a preset can have this name; the database itself takes no NUL and no half of a character."""
    is_seen = name == name.strip() and name.isprintable()
    return is_seen and 0 < len(name) <= LONGEST_NAME and "/" not in name


def _read(owner: str) -> Any:  # noqa: ANN401 - a selection of three columns
    preset = tables.Preset
    return select(preset.name, preset.params, preset.changed_at).where(preset.owner == owner)


def _missing(name: str) -> NotFound:
    return NotFound(f"You have no preset {name[:LONGEST_NAME]!r}.")


def _refused(field: str, message: str, accepted: str) -> Refused:
    return Refused(f"The preset cannot be kept: {field} {message}.", (FieldError(field, message, accepted),))
