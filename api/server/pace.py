"""How slowly a client may send a body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_BYTES: Final = 2**14  # that must come in each stretch of time, and be taken of an answer


@dataclass
class Pace:
    """At least `LEAST_BYTES` in each `stall` seconds, and all of it within `total` seconds of `began`."""

    began: float
    stall: float
    total: float

    def __post_init__(self) -> None:
        self._stretch = self.began
        self._came = 0

    @property
    def due(self) -> float:
        """By when the next bytes must have come."""
        return min(self._stretch + self.stall, self.began + self.total)

    def moved(self, size: int, now: float) -> None:
        """Count `size` bytes that came at `now`; enough of them begin the next stretch."""
        self._came += size
        if self._came >= LEAST_BYTES:
            self._stretch, self._came = now, 0

    def resume(self, now: float) -> None:
        """Begin the next stretch at `now`, because the client had to wait until then."""
        self._stretch, self._came = now, 0
