"""Processes of the farm that start in a tenth of the time, by a fork of one that has imported the farm."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from select import select
from threading import Lock

from tests.support.servers import clean_environment

ROOT = Path(__file__).parents[2]
_ROOM = " " * 2000  # for the command lines of what it starts
ENGINE = ("worker.render.engine_card", "worker.engine.loading.networks", "worker.engine.loading.layouts")
"""What a worker imports with its engine: PyTorch, diffusers and transformers."""


class Process:
    """As much of a `Popen` as tests use."""

    def __init__(self, parent: Parent, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._parent = parent
        self._ended = os.pidfd_open(pid)  # readable once it has ended; until it was asked for, the id is its own

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        if self.returncode is None and select([self._ended], [], [], 0)[0]:
            self.returncode = self._parent.ask({"pid": self.pid})
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status when it has ended. Raises TimeoutExpired."""
        if self.returncode is None and not select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Parent:
    """The process that starts others (tests/support/preloading.py); they end with it, and it with this one."""

    def __init__(self, *options: str, modules: Sequence[str] = ()) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = Lock()
        program = "from tests.support import preloading; preloading.main()"
        command = [sys.executable, *options, "-c", program, str(theirs.fileno()), " ".join(modules), _ROOM]
        with theirs:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=clean_environment() | {"OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(self, command: Sequence[str], env: Mapping[str, str], fds: Mapping[int, int]) -> Process:
        """Start `python -m command` with the files `fds`: the number there -> the one here."""
        order = {"command": [*command], "env": {**env}, "fds": [*fds]}
        return Process(self, self.ask(order, [*fds.values()]))

    def ask(self, order: object, files: Sequence[int] = ()) -> int | None:
        with self._lock:
            socket.send_fds(self._orders, [json.dumps(order).encode()], files)
            return json.loads(self._orders.recv(2**16))

    def family(self) -> list[int]:
        """Return the ids of it and of all processes that come from it, whatever became of their parents."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if stat.read_text().rpartition(")")[2].split()[3] == str(self.process.pid):  # its session
                    found.append(int(stat.parent.name))
        return found

    def close(self) -> None:
        """End it, and with it all that it started."""
        self._orders.close()
        self.process.wait(30)


@cache
def parent(*options: str) -> Parent:
    """Return the one that all tests of this run share whose interpreter has these options."""
    return Parent(*options)
