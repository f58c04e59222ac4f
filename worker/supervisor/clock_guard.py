"""A process that was late must not declare others dead: after a stop or a sleep all others look late too."""

from __future__ import annotations

import time
from collections.abc import Callable


def boot_clock() -> float:
    """Return seconds that go on while the machine sleeps, so that a laptop that wakes up knows that it was late."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockGuard:
    """Measures how long something that recurs every `period_seconds` has been on time; a gap of two periods is late."""

    def __init__(self, period_seconds: float, clock: Callable[[], float]) -> None:
        self._longest_gap = 2 * period_seconds
        self._clock = clock
        self._since: float | None = None
        self._latest = 0.0

    def tick(self) -> None:
        """Record that it has happened, in time or not."""
        now = self._clock()
        if self._since is None or now - self._latest > self._longest_gap:
            self._since = now
        self._latest = now

    def seconds_on_time(self) -> float:
        """Return for how long it has been on time; 0 if it is late now."""
        is_late = self._since is None or self._clock() - self._latest > self._longest_gap
        return 0.0 if is_late or self._since is None else self._latest - self._since
