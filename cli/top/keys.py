"""Keys as they are pressed: a terminal that gives each at once, and what the bytes of one mean."""

from __future__ import annotations

import re
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NAMES: Final = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"k": "up",
    b"\x1b[B": "down", b"\x1bOB": "down", b"j": "down",
    b"\x1b[5~": "page up", b"\x1b[6~": "page down", b" ": "page down",
    b"\x1b[H": "home", b"\x1b[1~": "home", b"\x1bOH": "home", b"g": "home",
    b"\x1b[F": "end", b"\x1b[4~": "end", b"\x1bOF": "end", b"G": "end",
    b"q": "quit", b"Q": "quit",
    b"w": "workers", b"o": "jobs",
}  # fmt: skip
_KEY: Final = re.compile(rb"\x1bO.|\x1b\[[\d;]*[A-Za-z~]|.", re.DOTALL)


@contextmanager
def at_once(terminal: int) -> Iterator[None]:
    """Have a terminal give each key when it is pressed, and show none, within the context. Ctrl-C stays what it is."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def names(read: bytes) -> list[str]:
    """Return the names of the keys that were read; other keys mean nothing."""
    return [_NAMES[key] for key in _KEY.findall(read) if key in _NAMES]
