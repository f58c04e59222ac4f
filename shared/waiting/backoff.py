"""How long to wait between tries of something that fails: twice as long after each failure, up to a bound."""

from __future__ import annotations

import time


class Backoff:
    """The pauses after failures in a row: `first_seconds`, doubled with each failure, at most `longest_seconds`.

    Before the first failure the next try is due at once. One thread uses it.
    """

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self.reset()

    def reset(self) -> None:
        """Forget the failures."""
        self._next_seconds = min(self._first_seconds, self._longest_seconds)
        self._due_at = 0.0

    def failed(self) -> float:
        """Count a failure, and return in how many seconds the next try is due."""
        seconds, self._next_seconds = self._next_seconds, min(self._next_seconds * 2, self._longest_seconds)
        self._due_at = time.monotonic() + seconds
        return seconds

    @property
    def is_due(self) -> bool:
        """True if the next try may begin."""
        return time.monotonic() >= self._due_at
