"""The API as a real process on a real socket, and clients that write to it byte by byte."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from api.socket import address, command, listen
from shared.settings import Settings
from tests.support import preloaded


@dataclass
class Served:
    process: subprocess.Popen[str] | preloaded.Process
    url: str

    def connect(self, first: bytes = b"", receive_buffer: int = 0) -> socket.socket:
        """Return a connection on which `first` has been sent."""
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        made = socket.socket()
        if receive_buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.settimeout(20)
        made.connect((host, int(port)))
        made.sendall(first)
        return made

    def exchange(self, sent: bytes) -> bytes:
        """Send raw bytes and return all that comes until the server ends the connection."""
        with self.connect(sent) as connection:
            return received(connection)

    def interrupt(self) -> float:
        """Press Ctrl-C, which reaches every process at the terminal, and return the seconds until the end."""
        return self._ended(lambda: os.killpg(self.process.pid, signal.SIGINT))

    def stop(self) -> float:
        return self._ended(self.process.terminate)

    def _ended(self, tell: Callable[[], None]) -> float:
        began = time.monotonic()
        tell()
        self.process.wait(30)
        return time.monotonic() - began


@contextmanager
def serving(settings: Settings, environ: Mapping[str, str], script: str | None = None) -> Iterator[Served]:
    """Serve the API in a process group of its own, which ends with these tests however they end."""
    with listen(settings) as listener:
        process = _started(listener, environ) if script is None else _scripted(listener, environ, script)
        url = address(listener)
    try:
        yield Served(process, url)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _started(listener: socket.socket, environ: Mapping[str, str]) -> preloaded.Process:
    files = {number: number for number in (0, 1, 2, listener.fileno())}
    return preloaded.parent("-W", "error").start(command(listener)[2:], environ, files)


def _scripted(listener: socket.socket, environ: Mapping[str, str], script: str) -> subprocess.Popen[str]:
    """Serve by a script, whose errors are read."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", sys.executable, "-c", script, *command(listener)[3:]],
        env=environ,
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the other side ends the connection."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(2**16):
            parts.append(part)
    return b"".join(parts)
