"""Files written whole and synced, below a folder that is held open.

All names are relative to the descriptor of that folder, so that a disk which is mounted, unmounted or moved meanwhile
changes nothing: a write ends in the folder in which it began.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_READ: Final = os.O_RDONLY | os.O_CLOEXEC
_FOLDER: Final = _READ | os.O_DIRECTORY
_FRESH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Yield the descriptor of `folder`. Raises OSError."""
    descriptor = os.open(folder, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(root: int, name: str) -> bytes | None:
    """Return the bytes of a file; None if there is none. Raises OSError."""
    try:
        with os.fdopen(os.open(name, _READ, dir_fd=root), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(root: int, name: str, data: bytes) -> None:
    """Write a whole file, which is on the disk when this returns: a power cut leaves all of it or nothing.

    Raises OSError. Nothing half-written stays, unless the disk refuses deletions too.
    """
    folder, _, base = name.rpartition("/")
    _make_folders(root, folder)
    fresh = f"{folder}/.{base}.{uuid.uuid4().hex}.tmp".removeprefix("/")
    try:
        with os.fdopen(os.open(fresh, _FRESH, 0o666, dir_fd=root), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, name, src_dir_fd=root, dst_dir_fd=root)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=root)
        raise
    _sync(root, folder)


def make_root(folder: Path) -> None:
    """Make a folder and its parents, all synced. Raises OSError."""
    if folder.is_dir():
        return
    make_root(folder.parent)
    folder.mkdir(exist_ok=True)
    with held(folder.parent) as parent:
        os.fsync(parent)


def _make_folders(root: int, folder: str) -> None:
    """Make `folder` below the root, which must exist."""
    parent = ""
    for name in folder.split("/") if folder else ():
        inner = f"{parent}/{name}".removeprefix("/")
        try:
            os.mkdir(inner, dir_fd=root)
        except FileExistsError:
            pass
        else:
            _sync(root, parent)
        parent = inner


def _sync(root: int, folder: str) -> None:
    descriptor = os.open(folder or ".", _FOLDER, dir_fd=root)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
