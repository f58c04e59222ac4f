"""Polls that run on threads of their own, so that callers get the latest result at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Final, Generic, TypeVar

import structlog

from shared.errors import FarmError

log = structlog.get_logger(__name__)

T = TypeVar("T")

_ASKED_SECONDS: Final = 60.0  # nobody having asked for so long, it is looked at no more, until somebody does
_LAST_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 2.0  # a look is waited for until it has taken so long, where nothing else is known


@dataclass(frozen=True)
class Known(Generic[T]):
    """What the latest look found, and how old that is."""

    value: T | None  # None: no look has come back yet
    age_seconds: float | None = None
    silent_seconds: float = 0.0  # for how long the look that is under way has not come back


class Watched(Generic[T]):
    """The result of `look`, which runs again so many seconds after each run while somebody asks.

    Threads may share it; none of them waits for a look that hangs.
    """

    def __init__(
        self, look: Callable[[], T], seconds: Callable[[T | None], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._seconds = seconds
        self._clock = clock
        self._changed = Condition()
        self._value: T | None = None
        self._looked_at: float | None = None
        self._began_at: float | None = None  # of the look that is under way
        self._due_at = 0.0
        self._asked_at = 0.0
        self._is_running = False
        self._thread: Thread | None = None
        self._is_closed = False

    def ask(self) -> None:
        """Have it looked at from now on; return at once."""
        with self._changed:
            self._asked_at = self._clock()
            if not self._is_running and not self._is_closed:
                self._is_running = True
                self._began_at = self._clock() if self._clock() >= self._due_at else None
                self._thread = Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()

    def get(self) -> Known[T]:
        """Return what is known. Where that is nothing, or of long ago, a look that has just begun is waited for."""
        self.ask()
        with self._changed:
            begun = self._clock() if self._began_at is None else self._began_at
            self._changed.wait_for(self._is_told, max(0.0, begun + _PATIENCE_SECONDS - self._clock()))
            now = self._clock()
            age = None if self._looked_at is None else now - self._looked_at
            return Known(self._value, age, 0.0 if self._began_at is None else now - self._began_at)

    def close(self) -> None:
        """Look no more; a look that is under way may take a moment to end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)

    def _is_told(self) -> bool:
        """Return whether what is known is as young as it can be: the next look is not due for long."""
        return self._is_closed or (self._looked_at is not None and self._clock() <= self._due_at + _PATIENCE_SECONDS)

    def _run(self) -> None:
        while self._wait():
            self._look_once()

    def _wait(self) -> bool:
        """Wait until the next run is due; return False, and count the thread out, if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, max(0.0, self._due_at - self._clock()))
            self._is_running = not self._is_closed and self._clock() - self._asked_at < _ASKED_SECONDS
            self._began_at = self._clock() if self._is_running else None
            return self._is_running

    def _look_once(self) -> None:
        found, is_found = None, False
        try:
            found, is_found = self._look(), True
        except FarmError as error:
            log.debug("look failed", reason=str(error))  # what was known stays known, with its age
        except Exception:  # an edge: a bad look must not end the others
            log.exception("look failed")
        with self._changed:
            now = self._clock()
            if is_found:
                self._value, self._looked_at = found, now
            self._began_at, self._due_at = None, now + self._seconds(self._value)
            self._changed.notify_all()
