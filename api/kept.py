"""An answer that is kept for a while: what many ask for is found out once."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """What `find` returned, for `seconds`. Safe for many threads: one of them asks, the others wait for its answer."""

    def __init__(self, find: Callable[[], T], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._answer: tuple[float, T] | None = None  # with the time until which it holds

    def get(self) -> T:
        """Return the answer, a new one where there is none or it is too old."""
        with self._lock:
            if self._answer is None or self._clock() >= self._answer[0]:
                found = self._find()
                self._answer = self._clock() + self._seconds, found
            return self._answer[1]
