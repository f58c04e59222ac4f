"""Asked in a confined child: does what the question says. For tests of the confinement."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def _spin() -> bytes:
    while True:
        pass


def _sleep() -> bytes:
    time.sleep(600)
    return b""


def _die() -> bytes:
    os.kill(os.getpid(), signal.SIGSEGV)
    return b""


def _leave() -> bytes:
    os._exit(3)


def _start() -> bytes:
    return str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid).encode()


def _raise() -> bytes:
    raise ValueError("just so")


def _print() -> bytes:
    print("words of a library")  # noqa: T201 - that is the point
    return b"printed"


def _mapped(path: str) -> bytes:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped[-3:]


def _write() -> bytes:
    try:
        Path("/tmp/confined-writes").write_text("x" * 10)
    except OSError as error:
        return type(error).__name__.encode()
    return b"written"


ACTS: dict[bytes, Callable[[], bytes]] = {
    b"environment": lambda: "\n".join(sorted(os.environ)).encode(),
    b"pid": lambda: str(os.getpid()).encode(),
    b"group": lambda: str(os.getpgid(0)).encode(),
    b"allocate": lambda: bytearray(300 * 2**20)[:3],
    b"hoard": lambda: bytes(len([bytes(2**20) for _ in range(300)])),
    b"answer": lambda: bytes(2 * 2**20),
    b"spin": _spin,
    b"sleep": _sleep,
    b"die": _die,
    b"leave": _leave,
    b"start": _start,
    b"raise": _raise,
    b"print": _print,
    b"write": _write,
}


def answer(question: bytes) -> bytes:
    if question.startswith(b"map "):
        return _mapped(question[4:].decode())
    return ACTS[question]() if question in ACTS else question[::-1]
