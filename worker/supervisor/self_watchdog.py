"""A worker without a supervisor, as a service manager starts it, watches itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from worker.supervisor.clock_guard import ClockGuard
from worker.supervisor.status_pipe import StatusWriter
from worker.supervisor.watchdog import Stage, Watchdog, longest_hung

SECONDS: Final = 1.0  # between two checks


class SelfWatchdog:
    """Calls `on_hang` with the stage that hangs and a description, if no supervisor watches this process."""

    def __init__(self, watchdog: Watchdog, status: StatusWriter, on_hang: Callable[[Stage, str], object]) -> None:
        self._watchdog = watchdog
        self._status = status
        self._on_hang = on_hang
        self._clock_guard = ClockGuard(2 * SECONDS, time.monotonic)

    def run_once(self) -> None:
        """Look for a hang, every `SECONDS`; send again what a full pipe did not take."""
        self._clock_guard.tick()
        self._watchdog.resend()
        now = time.monotonic()
        hung = longest_hung(self._watchdog.stages(), now, now - self._clock_guard.seconds_on_time())
        if hung and not self._status.is_supervised:
            self._on_hang(hung, hung.description(now))
