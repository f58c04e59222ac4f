"""Asks a terminal what it can draw: a few questions, a bounded wait, and nothing that was typed is lost."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from cli import interrupts

_PATIENCE_SECONDS: Final = 1.0  # an answer over a slow line that came later would look like typed
_LONGEST: Final = 4096  # bytes of answers
# Of a picture of one pixel: can it be drawn (kitty's protocol)? Of the size of a cell. Of all else, which every
# terminal answers: what is not answered before it is not known.
_QUESTIONS: Final = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[16t\x1b[c"
_KITTY: Final = re.compile(rb"\x1b_Gi=31;([^\x1b]*)\x1b\\")
_CELL: Final = re.compile(rb"\x1b\[6;(\d{1,4});(\d{1,4})t")
_ATTRIBUTES: Final = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL: Final = b"4"  # among the attributes
_USUAL_CELL: Final = (10, 20)


@dataclass(frozen=True)
class Abilities:
    """A terminal's abilities, by its own answers."""

    kitty: bool = False
    sixel: bool = False
    cell: tuple[int, int] = _USUAL_CELL  # width and height in pixels


def ask() -> Abilities:
    """Return what this process's terminal can draw; nothing if it has none, or is not in its foreground."""
    with suppress(OSError, termios.error):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if os.tcgetpgrp(terminal) == os.getpgrp():  # else asking would stop it
                return answers(terminal)
        finally:
            os.close(terminal)
    return Abilities()


def answers(terminal: int, patience_seconds: float = _PATIENCE_SECONDS) -> Abilities:
    """Return what the terminal of a descriptor answers. Keys typed before are left for the next reader.

    TERM meanwhile does what Ctrl-C does, and leaves the terminal as it was.
    """
    with interrupts.caught(interrupts.raise_interrupt), _unbuffered(terminal):
        if select.select([terminal], [], [], 0)[0]:  # somebody types: what is read now is not for us
            return Abilities(cell=_cell(terminal, b""))
        os.write(terminal, _QUESTIONS)
        said = _read(terminal, time.monotonic() + patience_seconds)
    attributes = _ATTRIBUTES.search(said)
    kitty = _KITTY.search(said)
    _put_back(terminal, re.sub(b"|".join(one.pattern for one in (_KITTY, _CELL, _ATTRIBUTES)), b"", said))
    return Abilities(
        kitty=kitty is not None and kitty[1] == b"OK",
        sixel=attributes is not None and _SIXEL in attributes[1].split(b";"),
        cell=_cell(terminal, said),
    )


@contextmanager
def _unbuffered(terminal: int) -> Iterator[None]:
    """Have the terminal give what it says as it comes and not show it, within the context; Ctrl-C still works."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal, termios.TCSADRAIN)  # TCSAFLUSH, the default, throws away what was typed
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _read(terminal: int, deadline: float) -> bytes:
    """Return what comes up to the last answer, or the deadline."""
    said = b""
    while not _ATTRIBUTES.search(said) and len(said) < _LONGEST:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            break
        part = os.read(terminal, _LONGEST)
        if not part:
            break
        said += part
    return said


def _put_back(terminal: int, typed: bytes) -> None:
    """Give keys that came between the answers to who reads next; where the kernel allows it, most do not any more."""
    with suppress(OSError):
        for byte in typed:
            fcntl.ioctl(terminal, termios.TIOCSTI, bytes([byte]))


def _cell(terminal: int, said: bytes) -> tuple[int, int]:
    """Return the size of a cell in pixels, as the kernel knows it, else as the terminal says."""
    with suppress(OSError):
        size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
        rows, columns, width, height = struct.unpack("HHHH", size)
        if rows and columns and width >= columns and height >= rows:
            return width // columns, height // rows
    told = _CELL.search(said)
    return (int(told[2]), int(told[1])) if told and int(told[1]) and int(told[2]) else _USUAL_CELL
