"""`farm wipe`: everything of owners is deleted, over HTTP where FARM_URL names a farm, else beside the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Final

import typer

from cli import terminal
from cli.connect import connect
from client.client import Json
from shared.accounts import limits
from shared.accounts.principal import Principal, Role
from shared.db.farm import farm_id
from shared.db.sessions import connect_once, sessions
from shared.maintenance import wiping
from shared.media.ownership import guarded
from shared.quantities import counted
from shared.settings import Settings

_AGAIN_SECONDS: Final = 0.3  # until processes have forgotten the keys
_HERE: Final = Principal("farm wipe", Role.ADMIN)  # as of `cli.keys`


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
            wiped = _whole(client.wipe_owner, names)
    else:
        wiped = _beside_the_database(settings, names)
    if as_json:
        terminal.answer_json({"owners": wiped})
    for one in () if as_json else wiped:
        terminal.answer(f"{one['owner']}: {counted(one['jobs'], 'job')}, {counted(one['keys'], 'key')}")


def _beside_the_database(settings: Settings, names: Sequence[str]) -> list[Json]:
    engine = connect_once(settings.database)
    try:
        rows = sessions(engine)
        storage = guarded(settings.storage, rows, farm_id(rows))
        return _whole(lambda name: asdict(wiping.wipe(rows, storage, _HERE, name)), names)
    finally:
        engine.dispose()


def _whole(wipe_some: Callable[[str], Json], names: Sequence[str]) -> list[Json]:
    """Wipe until nothing is left; return how much that was of each. All keys go in the first round."""
    done, waiting = dict[str, Json](), [*names]
    while waiting:
        jobs = 0
        for name in waiting:
            more, before = wipe_some(name), done.get(name, {"jobs": 0, "keys": 0})
            done[name] = {**more, "jobs": before["jobs"] + more["jobs"], "keys": before["keys"] + more["keys"]}
            jobs += more["jobs"]
        waiting = [name for name in waiting if done[name]["left"]]
        if waiting and not jobs:
            time.sleep(_AGAIN_SECONDS)
    return [*done.values()]
