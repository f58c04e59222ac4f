"""`farm api`, `farm worker`, `farm chores` and `farm db upgrade`: parts alone, for a farm of several machines."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from api.socket import listen
from cli import terminal
from cli.embedded import home
from cli.parts import environment
from shared.db import migrate, revisions
from shared.db.sessions import connect_once, sessions, transact
from shared.errors import NotRunning
from shared.logs.setup import configure
from shared.maintenance import outbox
from shared.settings import Settings


def upgrade(settings: Settings, *, as_json: bool) -> None:
    """Bring the database to the newest revision, and say which that is."""
    _require(settings, FARM_DATABASE_URL=settings.database_url)
    before = migrate.current(settings.database)
    migrate.upgrade(settings.database)
    after = revisions.head()
    if as_json:
        terminal.answer_json({"before": before, "after": after})
    elif before == after:
        terminal.answer(f"The database stands at {after} already.")
    else:
        terminal.answer(f"The database went from {before or 'nothing'} to {after}.")


def redeliver(settings: Settings, *, as_json: bool) -> None:
    """Have the events that were set aside delivered by the chores process, and say how many."""
    _require(settings, FARM_DATABASE_URL=settings.database_url)
    engine = connect_once(settings.database)
    try:
        events = transact(sessions(engine), outbox.try_again)
    finally:
        engine.dispose()
    if as_json:
        terminal.answer_json({"events": events})
    else:
        terminal.answer(f"{events} events are tried again within seconds, if `farm chores` runs.")


def serve_api(settings: Settings, *, as_json: bool) -> None:
    """Serve the API alone, in this process."""
    _require(settings, FARM_DATABASE_URL=settings.database_url, FARM_REDIS_URL=settings.redis_url)
    _keep_private(settings)
    from api import serve  # noqa: PLC0415 - Flask and the server, which the other commands do without

    if as_json:
        settings = settings.model_copy(update={"log_format": "json"})
    configure(settings)
    serve.run(settings, listen(settings))


def become(settings: Settings, module: str, arguments: list[str], *, as_json: bool) -> NoReturn:
    """Replace this process by one that runs a `module` of the worker's side, so that signals reach it directly."""
    _require(settings, FARM_DATABASE_URL=settings.database_url, FARM_REDIS_URL=settings.redis_url)
    _keep_private(settings)
    given = environment() | ({"FARM_LOG_FORMAT": "json"} if as_json else {})
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], given)  # noqa: S606 - our own, no shell


def _keep_private(settings: Settings) -> None:
    if settings.own_pictures:
        home.keep_private(settings.own_pictures)
        os.umask(home.PRIVATE_UMASK)


def _require(settings: Settings, **servers: str) -> None:
    """Raise NotRunning if a server is left to the farm of FARM_HOME and that is not up: only `farm up` starts it."""
    unset = [name for name, url in servers.items() if not url]
    if unset and not home.running(settings.home):
        raise NotRunning(
            f"No farm runs in {settings.home}, and {' and '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set. "
            f"Start a farm with `farm up`, or name the servers to join."
        )
