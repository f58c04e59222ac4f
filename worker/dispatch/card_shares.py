"""How many seconds of the card each image took, where several are rendered side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from shared.queue.claim import Claim


class CardShares:
    """Shares the seconds that pass evenly among the images that are rendered then. Safe for many threads.

    What an image takes is the difference of two readings of one clock, which runs the slower the more are rendered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._rendered = 0  # at this moment
        self._shared = 0.0  # that one image would have taken which was rendered all the time
        self._read_at = clock()
        self._taken: dict[tuple[int, int], float] = {}  # (image id, attempt)

    @contextmanager
    def taken_by(self, claim: Claim) -> Iterator[None]:
        """Count the time inside as one of an image that is rendered."""
        began = self._turn(1)
        try:
            yield
        finally:
            taken = self._turn(-1) - began
            with self._lock:
                self._taken[claim.image_id, claim.attempt] = taken

    def seconds(self, claim: Claim) -> float:
        """Return what an image took; 0 if it was not rendered."""
        return self._taken.get((claim.image_id, claim.attempt), 0.0)

    def forget(self, claim: Claim) -> None:
        with self._lock:
            self._taken.pop((claim.image_id, claim.attempt), None)

    def _turn(self, change: int) -> float:
        """Let so many more be rendered from now on; return what the shared clock reads."""
        with self._lock:
            now = self._clock()
            if self._rendered:
                self._shared += (now - self._read_at) / self._rendered
            self._read_at = now
            self._rendered += change
            return self._shared
