"""The home of a farm (`FARM_HOME`): who holds it, and where the farm that holds it is reached."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from shared.errors import LauncherError, NotRunning

_PATIENCE_SECONDS: Final = 1.0  # a holder killed this moment lets go only when the kernel has taken it apart


@dataclass(frozen=True)
class Record:
    """What `farm up` leaves in its home for clients to read."""

    url: str  # of the API
    pid: int  # of the process that holds the home
    started_at: str  # ISO 8601, UTC


@contextmanager
def claim_home(home: Path) -> Iterator[None]:
    """Hold `home` while the context lasts, so that one farm at a time runs in it. Raises LauncherError if one does.

    The kernel lets go when the process ends, however it ends. A home that does not exist is made, for the owner alone.
    """
    make_private(home)
    with _opened(home) as lock:
        _lock(lock.fileno(), home)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _opened(home: Path) -> IO[str]:
    try:
        return (home / "lock").open("a+")
    except OSError as error:
        raise LauncherError(
            f"{home} cannot be written ({error.strerror}); set FARM_HOME to a folder of yours that can."
        ) from error


def running(home: Path) -> bool:
    """True while a farm holds `home`. Raises NotRunning where this user may not know."""
    try:
        with (home / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except PermissionError as error:
        raise _foreign(home, error) from error
    except OSError:
        return False
    return False


def _foreign(home: Path, error: PermissionError) -> NotRunning:
    return NotRunning(
        f"{home} is another user's ({error.strerror}): set FARM_HOME to a folder of yours, "
        "or FARM_URL to that farm's address."
    )


def make_private(folder: Path) -> None:
    """Make `folder` for its owner alone; one that is there stays as it is. Raises LauncherError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LauncherError(
            f"{folder} cannot be made ({error.strerror}); set FARM_HOME to a folder of yours."
        ) from error


PRIVATE_UMASK: Final = 0o077
"""Of processes that write pictures which are their user's alone."""


def keep_private(folder: Path) -> None:
    """Close `folder` to other users, also if it existed. Raises LauncherError if that fails."""
    make_private(folder)
    try:
        folder.chmod(0o700)
    except OSError as error:
        raise LauncherError(
            f"{folder} cannot be kept from other users ({error.strerror}). If they may see it, set "
            f"FARM_STORAGE_URL=file://{folder}"
        ) from error


def write_record(home: Path, record: Record) -> None:
    """Leave `record` in `home`, whole or not at all."""
    fresh = home / "farm.json.new"
    fresh.write_text(json.dumps(asdict(record)), encoding="utf-8")
    fresh.replace(home / "farm.json")


def read_record(home: Path) -> Record | None:
    """Return the record of the farm that holds `home` now; None if no farm does, or if it is not up yet.

    Raises NotRunning if this user may not read it.
    """
    if not running(home):
        return None
    try:
        return Record(**json.loads((home / "farm.json").read_text(encoding="utf-8")))
    except PermissionError as error:
        raise _foreign(home, error) from error
    except (OSError, ValueError, TypeError):
        return None


def clear_record(home: Path) -> None:
    """Delete the record, because a farm that stops takes no more callers."""
    with suppress(OSError):
        (home / "farm.json").unlink(missing_ok=True)


def _lock(descriptor: int, home: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = (home / "lock").read_text().strip() or "unknown"
                raise LauncherError(
                    f"A farm runs in {home} already (process {holder}). Stop it, or set FARM_HOME to another folder."
                ) from None
        time.sleep(0.02)
