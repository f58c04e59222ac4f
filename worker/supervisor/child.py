"""One worker process as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import structlog

from shared.settings import without_keys
from shared.waiting.backoff import Backoff
from worker.supervisor.gpus import Address
from worker.supervisor.status_pipe import StatusReader
from worker.supervisor.watchdog import Stage, longest_hung, suspects

log = structlog.get_logger(__name__)

CLEAN: Final = 0
DECLARED_DEAD: Final = 70  # others declared this worker dead while it lived; its row and its images are gone
LOST: Final = 71  # the card answers nothing any more
HUNG: Final = 72  # a load or a call took far too long; without a supervisor the process ends itself
UNUSABLE: Final = 73  # its card failed the proof, or is not there; the worker has shown why for a while
GROWN: Final = 74  # its memory kept growing; it has drained and left
BUSY: Final = 75  # another process serves the card

_REASONS: Final = {LOST: "the card is lost", UNUSABLE: "the card cannot be used", GROWN: "its memory kept growing"}
_BUSY_SECONDS: Final = 2.0  # until a card that another process serves is tried again
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_HEALTHY_SECONDS: Final = 60.0  # after a process that lived so long the pauses are short again


@dataclass(frozen=True)
class Death:
    """The end of a worker's process; `worker_id` is None if it died before it was registered."""

    worker_id: int | None
    status: int
    hang: str = ""  # what hung, if the supervisor killed it because of that
    files: tuple[str, ...] = ()  # SHA-256 of the model files that probably ended it
    pause_seconds: float = 0.0  # until the next start

    @property
    def is_crash(self) -> bool:
        return self.status not in {CLEAN, DECLARED_DEAD, UNUSABLE, GROWN, BUSY}

    @property
    def reason(self) -> str:
        """The cause of the end, for people."""
        if self.hang:
            return f"its process {self.hang} and was killed"
        if self.status < 0:
            return f"its process was ended by {signal.Signals(-self.status).name}"
        if self.status in _REASONS:
            return f"its process ended with status {self.status}: {_REASONS[self.status]}"
        return f"its process ended with status {self.status}"


class Child:
    """The process that serves one card, started again with growing pauses as long as it dies young."""

    def __init__(
        self, card: Address, command: Sequence[str], environ: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.due_at: float | None = 0.0  # monotonic time of the next start; None while the process lives
        self._card = card
        self._command = command
        self._environ = environ  # added to the supervisor's own
        self._process: subprocess.Popen[bytes] | None = None
        self._status: StatusReader | None = None
        self._hung: Stage | None = None
        self._hang = ""  # its description
        self._started_at = 0.0
        self._backoff = Backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)

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
        self._started_at, self.due_at, self._hung, self._hang = time.monotonic(), None, None, ""
        log.info("worker started", card=self._card.name, pid=self._process.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        reading, writing = os.pipe()
        command = [*self._command, "--report", str(writing)]
        try:
            # A group of its own: Ctrl-C in the terminal is the supervisor's to pass on, once.
            environ = {**without_keys(os.environ), **self._environ}
            process = subprocess.Popen(command, pass_fds=(writing,), process_group=0, env=environ)  # noqa: S603
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._status = StatusReader(reading)
        return process

    def end_if_hung(self, awake_since: float) -> None:
        """Kill the process, once, if one of its stages has outlasted its limit.

        The supervisor has been awake since `awake_since` (monotonic); the time before does not count as a hang.
        """
        if self._process is None or self._status is None or self._hang:
            return
        self._status.read()
        now = time.monotonic()
        if hung := longest_hung(self._status.stages, now, awake_since):
            self._hung, self._hang = hung, hung.description(now)
            log.error("worker hung: killed", card=self._card.name, worker=self._status.worker_id, reason=self._hang)
            self._process.kill()

    def reap(self) -> Death | None:
        """Return how the process ended if it has, and set the time of the next start."""
        if self._process is None or self._process.poll() is None:
            return None
        worker_id, files = self._last_status()
        death = Death(worker_id, self._process.returncode, self._hang, files)
        seconds = time.monotonic() - self._started_at
        self._process = None
        shortest = _BUSY_SECONDS if death.status == BUSY else 0.0
        pause = self._schedule(seconds, is_crash=death.is_crash, shortest=shortest)
        say = log.warning if death.is_crash else log.info
        known = {"card": self._card.name, "worker": death.worker_id, "reason": death.reason, "seconds": seconds}
        say("worker ended", **known, next_try_seconds=pause)
        return replace(death, pause_seconds=pause)

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _schedule(self, lived_seconds: float, *, is_crash: bool, shortest: float = 0.0) -> float:
        """Set the next start and return in how many seconds it is: a young death waits longer each time."""
        if lived_seconds >= _HEALTHY_SECONDS or not is_crash:
            self._backoff.reset()
        pause = max(shortest, self._backoff.failed())
        self.due_at = time.monotonic() + pause
        return pause

    def _last_status(self) -> tuple[int | None, tuple[str, ...]]:
        """Return the id of the process's row, None if it was not registered yet, and the model files that ended it."""
        if self._status is None:
            return None, ()
        self._status.read()
        self._status.close()
        last, self._status = self._status, None
        return last.worker_id, suspects(last.stages, self._hung)
