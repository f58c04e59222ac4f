"""The embedded servers of one home, for as long as one farm holds it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psycopg

from cli.embedded.home import claim_home, make_private
from cli.embedded.postgres import Postgres
from cli.embedded.redis import Redis
from shared.embedded_addresses import socket_folder
from shared.errors import LauncherError
from shared.settings import Settings

T = TypeVar("T")


class Servers:
    """Holds a home and runs those of PostgreSQL and Redis that are asked for; a context manager.

    One thread of its own starts them and lives until they have stopped: the kernel ends them when that thread ends,
    so no death of this process leaves a server behind, and it does not matter which thread enters the context.
    """

    def __init__(self, home: Path, *, postgres: bool = True, redis: bool = True, durable: bool = True) -> None:
        self._home = home
        self._wanted = (postgres, redis)
        self._durable = durable
        self._servers: list[Postgres | Redis] = []  # in the order of their start
        self._context = ExitStack()

    @classmethod
    def embedded(cls, settings: Settings) -> Self:
        """Return the servers that `settings` leave to the farm: those without a URL."""
        return cls(settings.home, postgres=not settings.database_url, redis=not settings.redis_url)

    def __enter__(self) -> Self:
        """Claim the home, start the servers and wait until they answer. Raises LauncherError."""
        with ExitStack() as context:
            context.enter_context(claim_home(self._home))
            context.callback(self._stop)  # what an interrupted start started after the first stop
            self._keeper = context.enter_context(ThreadPoolExecutor(1, "servers"))
            context.callback(self._stop)  # not by the keeper: after Ctrl-C it still waits for a server's answer
            self._keep(self._start)
            self._context = context.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.close()

    def tend(self) -> list[str]:
        """Start again what has died, and return the names of those; a supervisor calls this every second or so.

        Raises LauncherError when one cannot be started; the next call tries again.
        """
        return self._keep(self._revive)

    def pids(self) -> dict[str, int | None]:
        """Return the process of each server by its name."""
        return {server.server.name: server.server.pid for server in self._servers}

    def _keep(self, action: Callable[[], T]) -> T:
        return self._keeper.submit(action).result()

    def _start(self) -> None:
        sockets = _private_sockets(self._home)
        logs = self._home / "logs"
        make_private(logs)
        postgres, redis = self._wanted
        if postgres:
            self._servers.append(Postgres(self._home, sockets, logs / "postgres.log", durable=self._durable))
        if redis:
            self._servers.append(Redis(self._home, sockets, logs / "redis.log"))
        _launch(self._servers)

    def _revive(self) -> list[str]:
        dead = [server for server in self._servers if not server.server.alive]
        _launch(dead)
        return [server.server.name for server in dead]

    def _stop(self) -> None:
        for server in reversed(self._servers):
            server.server.stop()
        self._servers.clear()


def _launch(servers: Sequence[Postgres | Redis]) -> None:
    """Start these servers side by side and wait until all of them answer. Raises LauncherError."""
    for server in servers:
        with _explained(server):
            server.begin()
    for server in servers:
        with _explained(server):
            server.wait()


@contextmanager
def _explained(server: Postgres | Redis) -> Iterator[None]:
    """Turn what a full disk does, or a server that ends while it is asked, into a LauncherError."""
    try:
        yield
    except (OSError, psycopg.Error) as error:
        raise LauncherError(f"The embedded {server.server.name} could not be started: {error}") from error


def _private_sockets(home: Path) -> Path:
    """Make the folder of the sockets. Where others may write too, it must be ours and closed to them."""
    folder = socket_folder(home)
    make_private(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise LauncherError(
            f"{folder}, the folder of the servers' sockets, is not this user's alone; remove it, or set FARM_HOME to "
            f"a shorter path."
        )
    return folder
