"""Bounds the requests of each key within a minute. No request waits for Redis to be counted.

A process counts by itself. Once a second, in a thread of its own, it tells the others through Redis what it counted. So
a key may exceed its bound by what it sends to several processes within that second; and while Redis is silent, each
process bounds what comes to it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil
from threading import Lock
from typing import Final

import structlog

from api.background_polls import Poll
from shared.accounts.principal import LOCAL, Principal

log = structlog.get_logger(__name__)

_WINDOW_SECONDS: Final = 60
_TELL_SECONDS: Final = 1.0

Add = Callable[[int, Mapping[str, int]], Mapping[str, int]]
"""Tells all processes of some requests within a minute, and returns the sums of all. May raise Unavailable."""


class RequestRate:
    """Counts the requests of keys within each minute. Safe for many threads."""

    def __init__(self, most: int, add: Add, clock: Callable[[], float] = time.time) -> None:
        """`most`: of one key within a minute; 0: any number."""
        self.most = most
        self._add = add
        self._clock = clock
        self._lock = Lock()
        self._telling = Poll(self.tell, lambda _: _TELL_SECONDS)
        self._minute = 0
        self._counts: Counter[str] = Counter()  # of all processes, as far as is known
        self._untold: Counter[str] = Counter()  # of this one, which the others do not know of
        self._refused: set[str] = set()

    def take(self, who: Principal) -> int:
        """Count a request and return 0; or the seconds until the next minute, if there were too many in this one.

        A farm without keys bounds nobody.
        """
        if who == LOCAL or not self.most:
            return 0
        self._telling.ask()
        whose = _whose(who)
        with self._lock:
            now = self._clock()
            if (minute := int(now // _WINDOW_SECONDS)) != self._minute:
                self._minute, self._counts, self._untold, self._refused = minute, Counter(), Counter(), set()
            if self._counts[whose] < self.most:
                self._counts[whose] += 1
                self._untold[whose] += 1
                return 0
            if whose not in self._refused:
                self._refused.add(whose)
                log.warning("a key sends too many requests", owner=who.owner, key=who.key_id)
            return ceil(_WINDOW_SECONDS - now % _WINDOW_SECONDS)

    def tell(self) -> None:
        """Tell the other processes, and hear from them. Raises Unavailable; lost counts are sent the next time."""
        with self._lock:
            minute, told = self._minute, self._untold
            self._untold = Counter()
        sums: Mapping[str, int] = {}
        try:
            sums = self._add(minute, told) if told else {}
        finally:
            with self._lock:
                if self._minute == minute:
                    self._untold += Counter() if sums else told
                    self._counts |= Counter({whose: number + self._untold[whose] for whose, number in sums.items()})

    def close(self) -> None:
        """Tell nobody any more."""
        self._telling.close()


def _whose(who: Principal) -> str:
    """Return what stands for a key; those of a setting count together for their owner."""
    return f"key {who.key_id}" if who.key_id else f"owner {who.owner}"
