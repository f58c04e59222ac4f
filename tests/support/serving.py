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


@dataclass
class Served:
    process: subprocess.Popen[str]
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


def scripted(listener: socket.socket, script: str) -> list[str]:
    return [sys.executable, "-c", script, *command(listener)[3:]]


@contextmanager
def serving(settings: Settings, environ: Mapping[str, str], script: str | None = None) -> Iterator[Served]:
    """Serve the API in a process group of its own, which ends with these tests however they end."""
    with listen(settings) as listener:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *(command(listener) if script is None else scripted(listener, script))],
            env=environ,
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE if script else None,
            text=True,
            start_new_session=True,
        )
        url = address(listener)
    try:
        yield Served(process, url)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the other side ends the connection."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(2**16):
            parts.append(part)
    return b"".join(parts)
