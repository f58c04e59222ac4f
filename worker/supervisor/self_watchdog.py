"""A worker without a supervisor, as a service manager starts it, watches itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from worker.supervisor.clock_guard import Punctuality
from worker.supervisor.status_pipe import Report
from worker.supervisor.watchdog import Pulse, Stage, longest_due

SECONDS: Final = 1.0


class SelfWatch:
    """One turn every `SECONDS`: `on_hang` is told what hangs, and in words, where no supervisor sees to it."""

    def __init__(self, pulse: Pulse, report: Report, on_hang: Callable[[Stage, str], object]) -> None:
        self._pulse = pulse
        self._report = report
        self._on_hang = on_hang
        self._punctuality = Punctuality(2 * SECONDS, time.monotonic)

    def run_once(self) -> None:
        self._punctuality.note()
        self._pulse.tell_again()
        now = time.monotonic()
        hung = longest_due(self._pulse.stages(), now, now - self._punctuality.seconds())
        if hung and not self._report.is_heard:
            self._on_hang(hung, hung.words(now))
