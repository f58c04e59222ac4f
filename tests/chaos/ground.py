"""The ground of chaos farms, one after another: real servers, ways to them, the API, a database for each plan."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from api.socket import address, command, listen
from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.settings import load
from tests.chaos.plans import API, OWNERS
from tests.chaos.proxy import Way, running_loop
from tests.support.preloaded import Parent, Process
from tests.support.servers import TEMPLATE, administrator, clean_environment, make_template

DATABASE = "chaos"
SERVERS = {"postgres": "PostgreSQL", "redis": "Redis"}
INSIDE = "127.0.0.0/8"  # where webhooks go
QUICK = {
    "FARM_LEASE_SECONDS": "2",
    "FARM_BEAT_SECONDS": "0.5",
    "FARM_LOOK_SECONDS": "0.3",
    "FARM_RESCAN_SECONDS": "3600",
    "FARM_LOG_FORMAT": "json",
    "FARM_WEBHOOK_NETWORKS": INSIDE,
    "OMP_NUM_THREADS": "1",
}
RESTART_SECONDS = 0.5  # until an ended process is started again: by systemd, a container runtime, a person
_MIGRATING = threading.Lock()  # Alembic does one thing at a time in a process


@dataclass
class RestartedProcess:
    """A process that is started again whenever it ends, as an init would."""

    name: str
    parent: Parent
    command: Sequence[str]  # after `python -m`
    environ: Mapping[str, str]
    log: Path
    pass_fds: Sequence[int] = ()
    starts: int = 0
    _process: Process | None = None
    _ended_at: float = field(default=0.0, init=False)

    def tend(self) -> None:
        """Start it if it has ended long enough ago."""
        if self._process is not None and self._process.poll() is None:
            return
        if self._process is not None:
            self._process, self._ended_at = None, time.monotonic()
        if time.monotonic() - self._ended_at >= RESTART_SECONDS:
            self._start()

    def _start(self) -> None:
        self.starts += 1
        with self.log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            files = {0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()}
            files |= {file: file for file in self.pass_fds}
            self._process = self.parent.start(self.command, self.environ, files)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def family(self) -> dict[int, list[str]]:
        """Return the process and its children, each with its arguments."""
        if self._process is None:
            return {}
        found = [self._process.pid, *_children(self._process.pid)]
        return {pid: _arguments(pid) for pid in found}

    def end(self) -> None:
        """Kill it with its children, and wait for it."""
        for pid in reversed(self.family()):
            send(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(30)


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _arguments(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    return []


class Ground:
    """The servers, the API and the ways; a farm at a time stands on it."""

    def __init__(self, folder: Path, sockets: Path, servers: Servers, loop: object, api_socket: object) -> None:
        self.folder = folder
        self.parent = Parent()  # of all processes: if this one dies, no farm is left behind
        self.home = folder / "home"
        self.servers = servers
        self.storage = folder / "pictures"
        self._disk = folder / "disk"  # where the storage is while it is not mounted
        self._sockets = sockets
        self._loop = loop
        self.ways: dict[tuple[str, str], Way] = {}
        self.url = address(api_socket)
        self.api = RestartedProcess(
            API, self.parent, command(api_socket)[2:], self.environ(API), folder / "api.log", [api_socket.fileno()]
        )

    def environ(self, party: str) -> dict[str, str]:
        """Return the environment of `party`, with ways to the servers that are its own."""
        folder = self._sockets / party.replace(":", "")
        if not folder.exists():
            folder.mkdir()
            run = embedded_addresses.socket_folder(self.home)
            paths = {"postgres": embedded_addresses.postgres_socket, "redis": embedded_addresses.redis_socket}
            for server, path in paths.items():
                self.ways[party, server] = Way(self._loop, path(folder), path(run))
                self.ways[party, server].mend()
        return {
            **clean_environment(),
            **QUICK,
            "FARM_HOME": str(self.folder / "farm"),
            "FARM_MODELS": str(self.folder / "models"),
            "FARM_STORAGE_URL": str(self.storage),
            "FARM_DATABASE_URL": f"postgresql://{embedded_addresses.DATABASE}@/{DATABASE}?host={folder}&port={embedded_addresses.PORT}",
            "FARM_REDIS_URL": f"unix://{embedded_addresses.redis_socket(folder)}",
            "FARM_API_KEYS": ",".join(f"{owner}:{key_of(owner)}" for owner in OWNERS),
            "FARM_PORT": "0",
        }

    @property
    def database_url(self) -> str:
        return embedded_addresses.database_url(self.home, DATABASE)

    @property
    def postgres_log(self) -> Path:
        return self.home / "logs" / "postgres.log"

    @property
    def redis_dump(self) -> Path:
        """The file from which Redis starts with its data, if there is one."""
        return self.home / "redis" / "dump.rdb"

    def redis(self) -> Redis:
        return Redis.from_url(embedded_addresses.redis_url(self.home))

    def renew(self) -> None:
        """Give the next farm an empty database, Redis and storage."""
        self.servers.tend()
        with administrator(self.home) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE}")
        self.redis_dump.unlink(missing_ok=True)
        with self.redis() as redis:
            redis.flushall()
        for place in (self.storage, self._disk):
            shutil.rmtree(place, ignore_errors=True)
        self.storage.mkdir()
        self.api.tend()

    def unmount(self, *, has_folder: bool) -> None:
        """Take the storage away, as an unmounted disk is; the empty folder that it was mounted on is there, or not."""
        if not self._disk.exists():
            self.storage.rename(self._disk)
            if has_folder:
                self.storage.mkdir()

    def mount(self) -> None:
        """Bring the storage back. Raises OSError where anything was stored in its place meanwhile."""
        if self._disk.exists():
            if self.storage.exists():
                self.storage.rmdir()
            self._disk.rename(self.storage)

    def kill_server(self, server: str) -> None:
        pid = self.servers.pids()[SERVERS[server]]
        assert pid
        send(pid, signal.SIGKILL)

    def stop(self, number: signal.Signals) -> None:
        pid = self.servers.pids()["Redis"]
        assert pid
        send(pid, number)


def key_of(owner: str) -> str:
    """Return an owner's API key."""
    return f"{owner}-long-secret"


@contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """Yield a ground with nothing on it; its servers and its API are gone at the end of the block."""
    (folder / "models").mkdir(parents=True)
    sockets = Path(tempfile.mkdtemp(prefix="stepfarm-chaos-", dir="/tmp"))  # short: a socket's path has 107 bytes
    settings = load({"FARM_PORT": "0"})
    try:
        with Servers(folder / "home") as servers, running_loop() as loop, listen(settings) as api_socket:
            with _MIGRATING:
                make_template(folder / "home")
            made = Ground(folder, sockets, servers, loop, api_socket)
            try:
                yield made
            finally:
                made.api.end()
                made.parent.close()
                for way in made.ways.values():
                    way.cut()  # which closes its socket
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
