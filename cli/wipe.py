"""`farm wipe`: everything of owners is deleted, over HTTP where FARM_URL names a farm, else beside the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

import typer

from cli import terminal
from cli.connect import connect
from client.client import Json
from shared.accounts import limits
from shared.db.farm import farm_id
from shared.db.sessions import Sessions, connect_once, sessions
from shared.maintenance import wiping
from shared.media.ownership import guarded
from shared.media.storage import Storage
from shared.quantities import counted
from shared.settings import Settings


def wipe(settings: Settings, owners: Iterable[str], *, is_sure: bool, as_json: bool) -> None:
    """Delete everything of these owners, after a question. Raises Refused."""
    names = [*dict.fromkeys(limits.owner(owner) for owner in owners)]
    if not names:
        raise typer.BadParameter("name an owner, or a file with --from")
    if not is_sure:
        what = f"Delete every job, picture and key of {counted(len(names), 'owner')}: {', '.join(names)}?"
        typer.confirm(what, abort=True, err=True)
    if settings.url:
        with connect(settings) as client:
            wiped = [_whole(partial(client.wipe_owner, name)) for name in names]
    else:
        wiped = _beside_the_database(settings, names)
    if as_json:
        terminal.answer_json({"owners": wiped})
    for one in () if as_json else wiped:
        terminal.answer(f"{one['owner']}: {counted(one['jobs'], 'job')}, {counted(one['keys'], 'key')}")


def _beside_the_database(settings: Settings, names: Iterable[str]) -> list[Json]:
    engine = connect_once(settings.database)
    try:
        rows = sessions(engine)
        storage = guarded(settings.storage, rows, farm_id(rows))
        return [_whole(partial(_wiped, rows, storage, name)) for name in names]
    finally:
        engine.dispose()


def _wiped(rows: Sessions, storage: Storage, name: str) -> Json:
    return asdict(wiping.wipe(rows, storage, name))


def _whole(wipe_some: Callable[[], dict[str, Any]]) -> Json:
    """Wipe until nothing is left; return how much that was in all."""
    done = wipe_some()
    while done["left"]:
        more = wipe_some()
        done = {**more, "jobs": done["jobs"] + more["jobs"], "keys": done["keys"] + more["keys"]}
    return done
