"""`farm keys`: over HTTP where FARM_URL names a farm, else beside the database, where no key is needed.

So a farm without keys gets its first one, and one whose last admin's key is lost gets another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, TypeVar

from rich.markup import escape
from sqlalchemy.orm import Session

from cli import terminal
from cli.connect import connect
from cli.terminal import age, minute, table
from client.client import Json
from shared.accounts import keys
from shared.accounts.principal import Principal, Role
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import connect_once, sessions, transact
from shared.settings import Settings

T = TypeVar("T")

HERE: Final = Principal("farm keys", Role.ADMIN)
"""People who reach the database may do everything with it anyway."""
_DEFAULT_OWNER: Final = "admin"
_HEADINGS: Final = ("key", "owner", "role", "name", "made", "used", "until")


def show(settings: Settings, *, everybodys: bool, as_json: bool) -> None:
    """Print the keys."""
    if settings.url:
        with connect(settings) as client:
            found = client.keys(everybodys=everybodys)
    else:
        found = [
            _json(view) for view in beside_the_database(settings, lambda session: keys.listed(session, EVERYBODYS))
        ]
    if as_json:
        return terminal.answer_json({"keys": found})
    empty = "No key. `farm keys create NAME --role admin` makes the first."
    return table(_HEADINGS, map(_row, found), empty, folded=("owner", "name"))


def create(settings: Settings, asked: Mapping[str, object], *, as_json: bool) -> None:
    """Make a key and print it. Raises Refused."""
    if settings.url:
        with connect(settings) as client:
            made = client.create_key(**asked)
    else:
        given = {name: value for name, value in asked.items() if value is not None}
        wanted, others = keys.parse(given, _DEFAULT_OWNER), bool(settings.api_keys) or settings.signs_in
        view, key = beside_the_database(settings, lambda session: keys.create(session, wanted, HERE, others=others))
        made = {**_json(view), "key": key}
    if as_json:
        return terminal.answer_json(made)
    terminal.answer(escape(made["key"]))
    return terminal.progress(
        f"Key {made['id']} of {made['owner']}, {made['role']}. Nobody can show it again. A program sends it as "
        "Authorization: Bearer KEY, this command reads it from FARM_API_KEY."
    )


def revoke(settings: Settings, key_id: int, *, as_json: bool) -> None:
    """Revoke a key. Raises NotFound."""
    if settings.url:
        with connect(settings) as client:
            revoked = client.revoke_key(key_id)
    else:
        revoked = _json(beside_the_database(settings, lambda session: keys.revoke(session, HERE, key_id)))
    if as_json:
        terminal.answer_json(revoked)
    else:
        terminal.answer(f"Key {key_id} of {escape(revoked['owner'])} opens nothing any more.")


def beside_the_database(settings: Settings, work: Callable[[Session], T]) -> T:
    """Return what `work` does to the database, which needs no key."""
    engine = connect_once(settings.database)
    try:
        return transact(sessions(engine), work)
    finally:
        engine.dispose()


def _json(view: keys.KeyView) -> Json:
    values: dict[str, Any] = asdict(view)
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _row(key: Json) -> tuple[str, ...]:
    until = "revoked" if key["revoked_at"] else minute(key["expires_at"])
    named = (str(key["id"]), escape(key["owner"]), key["role"], escape(key["name"]))
    return (*named, age(key["created_at"]), age(key["used_at"]), until)
