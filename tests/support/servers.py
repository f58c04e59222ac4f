"""The real servers that tests run on, as the farm itself starts them; one set for each run of pytest."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import httpx
import psycopg
from psycopg import sql

from shared import embedded_addresses
from shared.db import migrate

TEMPLATE = "template_of_tests"
MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 2 * 2**30  # bytes: the log that a PostgreSQL keeps, and the databases of a test
_PREFIX = "stepfarm-tests-"
_numbers = count(1)


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """Yield a new folder in memory, which is gone after the block; `otherwise`, if memory has no room.

    A database has some 300 files: to make them takes a seventh of the processor time that it takes on a disk.
    """
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < MEMORY_NEEDED:
        yield otherwise
        return
    with ExitStack() as stack:
        with _locked(MEMORY, fcntl.LOCK_EX):  # nobody takes a new folder for abandoned
            _remove_abandoned_folders()
            folder = Path(stack.enter_context(TemporaryDirectory(prefix=_PREFIX, dir=MEMORY)))
            stack.enter_context(_locked(folder))
        yield folder


def _remove_abandoned_folders() -> None:
    """Remove what runs that were killed have left in memory: nobody holds the lock of such a folder."""
    for folder in MEMORY.glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(folder):
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, how: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError if another process has it and one is not to wait."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def make_template(home: Path) -> None:
    """Make the migrated database that every test's own is a copy of."""
    with administrator(home) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate.upgrade(embedded_addresses.database_url(home, TEMPLATE))


@contextmanager
def fresh_database(home: Path, *, template: str = TEMPLATE) -> Iterator[str]:
    """Yield the SQLAlchemy URL of a new database, which is dropped afterwards even if it is in use."""
    name = f"test_{next(_numbers)}"
    with administrator(home) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(  # three quarters of the time of a log
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        yield embedded_addresses.database_url(home, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any FARM_* of the person who runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FARM_")}


def administrator(home: Path) -> psycopg.Connection:
    """Return a connection that may do anything on the servers of a home."""
    return psycopg.connect(
        host=str(embedded_addresses.socket_folder(home)),
        port=embedded_addresses.PORT,
        user=embedded_addresses.DATABASE,
        dbname="postgres",
        autocommit=True,
    )


@contextmanager
def object_store(folder: Path, access_key: str, secret: str) -> Iterator[str]:
    """Run an S3 server (SeaweedFS) and yield its endpoint; a bucket is made by the first use."""
    identity = {
        "name": "farm",
        "credentials": [{"accessKey": access_key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    endpoint, server = _start_weed(folder)
    try:
        yield endpoint
    finally:
        server.kill()
        server.wait()


def _start_weed(folder: Path, tries: int = 5) -> tuple[str, subprocess.Popen[bytes]]:
    """Start it on ports that are free. Another program may take one meanwhile: then it ends, and others are tried."""
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    names += ["filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"]
    options = dict(zip(names, free_ports(8), strict=True)) | {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "s3.json",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "filer.localSocket": folder / "filer.sock",
        "master.volumeSizeLimitMB": 32,
        "master.telemetry": "false",
        "volume.max": 20,
    }
    weed = Path(sys.executable).with_name("weed")
    flags = [f"-{name}={value}" for name, value in options.items()]
    endpoint = f"http://127.0.0.1:{options['s3.port']}"
    with (folder / "weed.log").open("ab") as log:
        command = ["setpriv", "--pdeathsig", "KILL", weed, "-logtostderr", "server", "-filer", "-s3", *flags]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        await_answer(endpoint, server)
    except AssertionError:
        server.kill()
        server.wait()
        if tries == 1:
            raise
        return _start_weed(folder, tries - 1)
    return endpoint, server


class Polled(Protocol):
    """A process that can be asked for its end."""

    def poll(self) -> int | None: ...


def await_answer(url: str, server: Polled, seconds: float = 60) -> None:
    """Wait until something answers HTTP at `url`, whatever it says."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            httpx.get(url, timeout=5)
        except httpx.TransportError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)
        else:
            return


@contextmanager
def silent(path: Path) -> Iterator[str]:
    """Yield the URL of a Redis that takes connections and never answers; after the block there is none."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield f"unix://{path}"


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports
