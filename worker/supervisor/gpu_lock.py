"""One worker a card: its process holds a file lock, which the kernel releases however the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shared.errors import Conflict, LauncherError
from worker.supervisor.gpus import Address

_MACHINE: Final = Path("/tmp")  # noqa: S108 - fixed, not TMPDIR: every farm of the machine must find the same locks


def path(card: Address, home: Path) -> Path:
    """Return the lock of `card`: machine-wide for a real card; on the CPU the farm's own."""
    if card.uuid:
        return _MACHINE / f"stepfarm-card-{card.uuid.replace('/', '-')}.lock"  # MIG-GPU-…/1/0, on older drivers
    return home / "locks" / f"{card.name.replace(':', '-')}.lock"


@contextmanager
def hold(file: Path) -> Iterator[None]:
    """Hold the lock `file` within the block. Raises Conflict, naming the process that has it; LauncherError."""
    try:
        descriptor = _open(file)
    except OSError as error:
        raise LauncherError(f"The lock {file} cannot be opened ({error.strerror}).") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise Conflict(f"Another worker (process {holder}) serves this card: it holds {file}.") from None
    try:
        with suppress(OSError):  # without the right to write, the process that holds the lock stays unknown
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    """Open `file`, read-only if it is another user's, which is enough to hold it. Links are not followed."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except PermissionError:
        return os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    with suppress(OSError):  # the file may be writable and belong to another user
        os.fchmod(descriptor, 0o644)  # despite the umask: farms of other users hold it too
    return descriptor
