"""Which sessions of browsers have ended, of those that open streams follow: one question to PostgreSQL for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from threading import Lock
from typing import Final

from api.background_polls import Poll

_SECONDS: Final = 0.4  # between two looks: with the turn of a stream less than a second
_FOLLOWED_SECONDS: Final = 5.0  # one that nobody has asked about for this long is looked up no more


class SessionLookups:
    """Looks sessions up on a thread of its own, by their digests, while somebody asks. Safe for many threads."""

    def __init__(
        self,
        lasting: Callable[[Collection[str]], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look sessions up by `lasting`, which returns those of some digests that last; it may raise Unavailable."""
        self._lasting = lasting
        self._clock = clock
        self._lock = Lock()
        self._asked: dict[str, float] = {}  # when somebody asked last
        self._ended: set[str] = set()
        self._poll = Poll(self._look, lambda _: _SECONDS)

    def lasts(self, digest: str) -> bool:
        """False once it is known that a session has ended. It waits for nothing, and has it looked up."""
        with self._lock:
            self._asked[digest] = self._clock()
        self._poll.ask()
        return digest not in self._ended

    def close(self) -> None:
        """Look no more."""
        self._poll.close()

    def _look(self) -> None:
        with self._lock:
            now = self._clock()
            self._asked = {one: at for one, at in self._asked.items() if at > now - _FOLLOWED_SECONDS}
            followed = frozenset(self._asked)
        self._ended = {*followed} - {*self._lasting(followed)} if followed else set()
