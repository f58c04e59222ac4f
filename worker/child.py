"""One worker process as its supervisor sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from worker.cards import Address

log = structlog.get_logger(__name__)

CLEAN: Final = 0
BURIED: Final = 70  # others declared this worker dead while it lived; its row and its images are gone
LOST: Final = 71  # the card answers nothing any more
BUSY: Final = 75  # another process serves the card

_BUSY_SECONDS: Final = 2.0  # until a card that another process serves is tried again
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_HEALTHY_SECONDS: Final = 60.0  # a process that lived so long starts the pauses anew


@dataclass(frozen=True)
class Death:
    """How a worker's process ended; `worker_id` is None when it died before it was registered."""

    worker_id: int | None
    status: int

    @property
    def is_crash(self) -> bool:
        return self.status not in {CLEAN, BURIED, BUSY}

    @property
    def reason(self) -> str:
        """What ended the process, for people."""
        if self.status < 0:
            return f"its process was ended by {signal.Signals(-self.status).name}"
        return f"its process ended with status {self.status}"


class Child:
    """The process that serves one card, started again with growing pauses as long as it dies young."""

    def __init__(self, card: Address, command: Sequence[str]) -> None:
        self.due_at: float | None = 0.0  # monotonic time of the next start; None while the process lives
        self._card = card
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._started_at = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    @property
    def is_alive(self) -> bool:
        return self._process is not None

    def start_when_due(self) -> None:
        if self.due_at is None or time.monotonic() < self.due_at:
            return
        try:
            self._process = self._start()
        except OSError as error:  # no memory, no process left, no file descriptor: later there may be
            self._schedule(0.0, is_crash=True)
            log.warning("worker not started", card=self._card.name, reason=str(error))
            return
        self._started_at, self.due_at = time.monotonic(), None
        log.info("worker started", card=self._card.name, pid=self._process.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        ours, theirs = os.pipe()
        command = [*self._command, "--report", str(theirs)]
        try:
            # A group of its own: Ctrl-C in the terminal is the supervisor's to pass on, once.
            process = subprocess.Popen(command, pass_fds=(theirs,), process_group=0)  # noqa: S603
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._pipe = ours
        return process

    def reap(self) -> Death | None:
        """Return how the process ended if it has, and set the time of the next start."""
        if self._process is None or self._process.poll() is None:
            return None
        death = Death(self._worker_id(), self._process.returncode)
        seconds = time.monotonic() - self._started_at
        self._process = None
        self._schedule(seconds, is_crash=death.is_crash, shortest=_BUSY_SECONDS if death.status == BUSY else 0.0)
        tell = log.warning if death.is_crash else log.info
        tell("worker ended", card=self._card.name, worker=death.worker_id, reason=death.reason, seconds=seconds)
        return death

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _schedule(self, lived_seconds: float, *, is_crash: bool, shortest: float = 0.0) -> None:
        """A clean end starts anew at once; a young death waits longer each time."""
        if lived_seconds >= _HEALTHY_SECONDS or not is_crash:
            self._pause_seconds = _FIRST_PAUSE_SECONDS
        self.due_at = time.monotonic() + max(shortest, self._pause_seconds)
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, self._pause_seconds * 2)

    def _worker_id(self) -> int | None:
        """Read what the process reported of itself: lines of JSON, here the one with its row's id."""
        os.set_blocking(self._pipe, False)  # a stray grandchild may still hold the other end
        try:
            lines = os.read(self._pipe, 65536).splitlines()
        except BlockingIOError:
            lines = []
        os.close(self._pipe)
        return next((int(json.loads(line)["worker"]) for line in lines), None)
