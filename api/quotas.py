"""Places for what may be done by few at once, shared among owners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock


class Places:
    """At most `whole` at a time; while several owners share the farm, of one at most half. Safe for many threads."""

    def __init__(self, whole: int, is_shared: Callable[[], bool]) -> None:
        self._whole = whole
        self._is_shared = is_shared
        self._free = whole
        self._taken: Counter[str] = Counter()
        self._lock = Lock()

    @property
    def share(self) -> int:
        """How many one owner may have."""
        return max(self._whole // 2, 1) if self._is_shared() else self._whole

    def take(self, owner: str) -> bool:
        """Take a place for `owner`; False if there is none."""
        with self._lock:
            if self._free < 1 or self._taken[owner] >= self.share:
                return False
            self._free -= 1
            self._taken[owner] += 1
            return True

    def give(self, owner: str) -> None:
        """Give a place of `owner` back."""
        with self._lock:
            self._free += 1
            self._taken[owner] -= 1
            if not self._taken[owner]:
                del self._taken[owner]
