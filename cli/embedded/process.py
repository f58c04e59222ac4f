"""One server as a direct child: in a session of its own, ended by the kernel with the thread that started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shared.errors import LauncherError

_START_SECONDS: Final = 120  # PostgreSQL after a crash replays its log first; as a rule it takes a second
_PAUSE_SECONDS: Final = 0.005
_TAIL_BYTES: Final = 2**16
ENVIRONMENT: Final = {"LC_ALL": "C"}
"""The variables that an embedded server gets: no PGDATA of another server, no secret of the farm."""
_HELP: Final = "or set FARM_DATABASE_URL and FARM_REDIS_URL to servers of your own"


@dataclass
class Server:
    """A server program and its process.

    `signals` ask it to stop, the gentlest first, each with the seconds that it gets; then it is killed.
    """

    name: str
    command: Sequence[str | Path]
    folder: Path  # its working folder: how a process of an earlier start is known
    log: Path
    is_ready: Callable[[], bool]
    signals: Sequence[tuple[signal.Signals, float]]
    prefix: Sequence[str] = ()  # what runs it as somebody else
    descriptors: Sequence[int] = ()  # open files that it is handed
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)
    umask: int | None = None  # None: as this process has it
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _log_start: int = field(default=0, init=False)

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def spawn(self) -> None:
        """Start the process. It ends with the calling thread (PR_SET_PDEATHSIG), so that thread must outlive it.

        Its own session keeps a Ctrl-C at the terminal away from it: servers stop last, when told to. Raises
        LauncherError where the machine has no room for its log or for one more process.
        """
        try:
            self._spawn()
        except OSError as error:
            raise LauncherError(f"The {self.name} could not be started: {error}.") from error

    def _spawn(self) -> None:
        death = [find_tool("setpriv"), "--pdeathsig", self.signals[0][0].name.removeprefix("SIG")]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._child = subprocess.Popen(  # noqa: S603 - our own command line, no shell
                [*self.prefix, *death, *map(str, self.command)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.environment,
                pass_fds=self.descriptors,
                umask=-1 if self.umask is None else self.umask,
            )

    def wait_ready(self) -> bool:
        """Wait until it answers; False if it ended instead. Raises LauncherError when it does neither for minutes."""
        deadline = time.monotonic() + _START_SECONDS
        while self.alive:
            if self.is_ready():
                return True
            if time.monotonic() > deadline:
                self.stop()
                raise self.failure(f"does not answer after {_START_SECONDS} s")
            time.sleep(_PAUSE_SECONDS)
        return False

    def stop(self) -> None:
        """End the process and wait until it is gone."""
        child = self._child
        if child is None:
            return
        for number, seconds in self._escalation():
            if child.poll() is None:
                child.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
                return

    def end_leftover(self, pid: int | None) -> None:
        """End process `pid` if it works in this server's folder: an earlier, killed farm left it. Others are let alone.

        Only for the holder of the home, who knows that nobody else needs it.
        """
        for number, seconds in self._escalation():
            if pid is None or not _works_in(pid, self.folder):
                return
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            _wait_until(lambda: not _works_in(pid, self.folder), seconds)

    def failure(self, what: str) -> LauncherError:
        """Return the error that says `what` happened to this server, with the last lines of its log."""
        return LauncherError(
            f"The embedded {self.name} {what}; {self.log} says:\n{self.tail()}\nCorrect that, {_HELP}."
        )

    def tail(self, lines: int = 8) -> str:
        """Return the last lines that it logged since it was started."""
        with suppress(OSError), self.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            start = self._log_start if self._log_start <= size else 0  # it was put aside meanwhile
            log.seek(max(start, size - _TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""

    def _escalation(self) -> list[tuple[signal.Signals, float]]:
        return [*self.signals, (signal.SIGKILL, 60)]


def read_pid(pid_file: Path) -> int | None:
    """Return the process that a server's own file names; None without a readable one."""
    try:
        return int(pid_file.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def find_tool(name: str) -> str:
    """Return the path of a program of util-linux, which every Debian and Ubuntu has."""
    path = shutil.which(name)
    if path is None:
        raise LauncherError(f"Embedded servers need the program {name!r}: install the package util-linux, {_HELP}.")
    return path


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except OSError:  # no such process, a dead one, or another user's
        return False


def _wait_until(is_true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
