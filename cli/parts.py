"""A part of the farm that runs for as long as the farm does: started again when it dies."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from cli.embedded.process import Server
from shared.settings import without_keys
from shared.waiting.backoff import Backoff

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
_HEALTHY_SECONDS: Final = 60.0
_LONGEST_LOG_BYTES: Final = 16 * 2**20
_OLDER_LOGS: Final = 3  # of each part, beside the one that is written


class Part:
    """A process of the farm. One that dies starts again at once; one that keeps dying, ever more slowly."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._started = 0.0
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

    def start(self) -> None:
        """Start the process. Raises LauncherError."""
        self.server.spawn()
        self._started = time.monotonic()

    def tend(self) -> bool:
        """Start it again if it has died and its time has come; True if it did. Raises LauncherError."""
        if self.server.alive:
            if time.monotonic() - self._started > _HEALTHY_SECONDS:
                self._backoff.reset()
            return False
        if not self._backoff.is_due:
            return False
        self._backoff.failed()
        self.start()
        return True

    def hurry(self) -> None:
        """Ask once more, while `stop` waits: workers then hand back what they have instead of finishing it."""
        if self.server.alive and self.server.pid:
            with suppress(ProcessLookupError):
                os.kill(self.server.pid, signal.SIGTERM)


def environment(*, with_keys: bool = False) -> dict[str, str]:
    """Return the environment of the farm's processes: all variables, but not the command line's import folder.

    That folder may hold an `api` or a `worker` of its own. Only the API is given the farm's keys.
    """
    given = dict(os.environ) if with_keys else without_keys(os.environ)
    is_ours = Path.cwd() == Path(__file__).parents[1]
    return given if is_ours else given | {"PYTHONSAFEPATH": "1"}


def rotate_logs(folder: Path) -> None:
    """Put the contents of each log that has grown large aside, over the oldest that were put aside before.

    The processes that write go on in the same file: what one writes in the moment between the copy and the cut is lost.
    """
    for log in folder.glob("*.log"):
        with suppress(OSError):  # a full disk: the next turn may do
            if log.stat().st_size > _LONGEST_LOG_BYTES:
                _put_aside(log)


def _put_aside(log: Path) -> None:
    older = [log.with_suffix(f".log.{number}") for number in range(1, _OLDER_LOGS + 1)]
    older[-1].unlink(missing_ok=True)
    for newer, aside in zip(older[-2::-1], older[:0:-1], strict=True):
        if newer.exists():
            newer.replace(aside)
    try:
        shutil.copyfile(log, older[0])
        older[0].chmod(log.stat().st_mode & 0o777)
    finally:
        os.truncate(log, 0)  # even if the disk had no space for the copy, because the log must not fill it
