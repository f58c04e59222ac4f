"""Who was late himself judges nobody: after a stop or a sleep all others look late too."""

from __future__ import annotations

from collections.abc import Callable


class Punctuality:
    """Since when something that recurs has been on time."""

    def __init__(self, beat_seconds: float, clock: Callable[[], float]) -> None:
        self._longest_gap = 2 * beat_seconds
        self._clock = clock
        self._since: float | None = None
        self._latest = 0.0

    def note(self) -> None:
        """Record that it has happened, in time or not."""
        now = self._clock()
        if self._since is None or now - self._latest > self._longest_gap:
            self._since = now
        self._latest = now

    def seconds(self) -> float:
        """Return how long it has been on time."""
        is_late = self._since is None or self._clock() - self._latest > self._longest_gap
        return 0.0 if is_late or self._since is None else self._latest - self._since
