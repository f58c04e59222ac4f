"""The embedded PostgreSQL: made once, reached over a socket only, up in a moment, started again after any death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg

from cli.embedded import binaries, namespace
from cli.embedded.process import ENVIRONMENT, Server, read_pid
from shared.embedded_addresses import DATABASE, PORT, postgres_socket
from shared.errors import LauncherError

_ORPHANS_SECONDS: Final = 30
_SETTINGS: Final = {
    "listen_addresses": "",  # no TCP
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "jit": "off",  # our queries are short
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "timezone": "UTC",
}
_FORGETFUL: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


class Postgres:
    """The PostgreSQL of one home. `durable` off: as fast as it gets, for data that a crash of the machine may take."""

    def __init__(self, home: Path, sockets: Path, log: Path, *, durable: bool = True) -> None:
        self._initdb, program = binaries.postgres()
        self._data = home / "postgres"
        self._sockets = sockets
        self._haste = [] if durable else ["--no-sync"]
        settings = _SETTINGS | {"unix_socket_directories": str(sockets)} | ({} if durable else _FORGETFUL)
        self.server = Server(
            name="PostgreSQL",
            command=[program, "-D", self._data, *(f"--{name}={value}" for name, value in settings.items())],
            folder=self._data,
            log=log,
            is_ready=self._answers,
            signals=((signal.SIGINT, 20), (signal.SIGQUIT, 5)),  # fast shutdown; immediate
            prefix=namespace.prefix(),
        )

    def begin(self) -> None:
        """Start it, without waiting until it answers."""
        if not self._data.exists():
            self._make()
        self._clear()
        self.server.spawn()

    def wait(self) -> None:
        """Wait until it answers and has its database. Raises LauncherError with its last words when it cannot start."""
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while not self.server.wait_ready():
            if "shared memory block" not in self.server.tail() or time.monotonic() > deadline:
                raise self.server.failure("did not start")
            time.sleep(0.05)  # children of a killed one still end, and hold its memory so long
            self.server.spawn()
        with self._connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _make(self) -> None:
        """Make the data folder: aside, then renamed, so that a half-made one is never taken for whole."""
        fresh = self._data.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        command = [self._initdb, "-D", fresh, "-U", DATABASE, "-E", "UTF8", "--locale=C", "-A", "trust", *self._haste]
        made = subprocess.run(  # noqa: S603 - our own command line, no shell
            [*self.server.prefix, *map(str, command)], capture_output=True, text=True, check=False, env=ENVIRONMENT
        )
        if made.returncode:
            raise LauncherError(
                f"PostgreSQL could not make its data folder {self._data}: {made.stderr.strip()}\n"
                f"Correct that, or set FARM_DATABASE_URL to your own PostgreSQL."
            )
        fresh.rename(self._data)

    def _clear(self) -> None:
        """Clear away what a killed start left: its process, its sockets, its claim to a process number.

        The file itself stays: by it PostgreSQL knows the shared memory that orphans of the killed one may still use.
        The number of this process, the parent, makes it stale, whichever process has the old number now.
        """
        pid_file = self._data / "postmaster.pid"
        self.server.end_leftover(read_pid(pid_file))
        with suppress(FileNotFoundError):
            _, _, rest = pid_file.read_text().partition("\n")
            pid_file.write_text(f"{os.getpid()}\n{rest}")
        socket = postgres_socket(self._sockets)
        socket.unlink(missing_ok=True)
        socket.with_name(f"{socket.name}.lock").unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._sockets), port=PORT, user=DATABASE, dbname="postgres", autocommit=True, connect_timeout=5
        )
