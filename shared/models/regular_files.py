"""Opens regular files only: opening a pipe may block for ever, and reading a device may never end."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Final

_KINDS: Final = (
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
    (stat.S_ISDIR, "is a folder"),
)


class NotRegular(OSError):
    """The path is not a regular file; `strerror` says what it is, for people."""


def status(path: Path) -> os.stat_result:
    """Return the status of the regular file at `path`, or that a link there leads to. Raises OSError, NotRegular."""
    return _regular(path, path.stat())


def opened(path: Path) -> BufferedReader:
    """Open the regular file at `path` to read its bytes. Raises OSError, NotRegular; it never waits."""
    status(path)  # a device is not even opened
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _regular(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def _regular(path: Path, found: os.stat_result) -> os.stat_result:
    if stat.S_ISREG(found.st_mode):
        return found
    what = next((words for is_one, words in _KINDS if is_one(found.st_mode)), "is something else")
    raise NotRegular(0, f"{what}, not a regular file", str(path))
