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

_ASKED_SECONDS: Final = 60.0  # polling stops if nobody asked for this long, and starts again when somebody asks
_LAST_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 2.0  # longest wait for a running poll, if there is no recent result


@dataclass(frozen=True)
class PollResult(Generic[T]):
    """The result of the latest poll, and its age."""

    value: T | None  # None: no poll has ended yet
    age_seconds: float | None = None
    silent_seconds: float = 0.0  # for how long the running poll has not answered


class Poll(Generic[T]):
    """Calls `poll` on a thread of its own, again `seconds(result)` after each call, while somebody asks.

    Threads may share it; no thread waits long for a poll that hangs.
    """

    def __init__(
        self, poll: Callable[[], T], seconds: Callable[[T | None], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._poll = poll
        self._seconds = seconds
        self._clock = clock
        self._changed = Condition()
        self._value: T | None = None
        self._looked_at: float | None = None
        self._began_at: float | None = None  # of the running poll
        self._due_at = 0.0
        self._asked_at = 0.0
        self._is_running = False
        self._thread: Thread | None = None
        self._is_closed = False

    def ask(self) -> None:
        """Start polling, or go on with it; return at once."""
        with self._changed:
            self._asked_at = self._clock()
            if not self._is_running and not self._is_closed:
                self._is_running = True
                self._began_at = self._clock() if self._clock() >= self._due_at else None
                self._thread = Thread(target=self._run, name="poll", daemon=True)
                self._thread.start()

    def get(self) -> PollResult[T]:
        """Return the latest result. Waits for a running poll if there is none, or only an old one."""
        self.ask()
        with self._changed:
            begun = self._clock() if self._began_at is None else self._began_at
            self._changed.wait_for(self._is_fresh, max(0.0, begun + _PATIENCE_SECONDS - self._clock()))
            now = self._clock()
            age = None if self._looked_at is None else now - self._looked_at
            return PollResult(self._value, age, 0.0 if self._began_at is None else now - self._began_at)

    def close(self) -> None:
        """Stop polling; a running poll may take a moment to end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)

    def _is_fresh(self) -> bool:
        """Return whether there is a result and the next poll is not long overdue."""
        return self._is_closed or (self._looked_at is not None and self._clock() <= self._due_at + _PATIENCE_SECONDS)

    def _run(self) -> None:
        while self._wait():
            self._poll_once()

    def _wait(self) -> bool:
        """Wait until the next run is due; return False, and count the thread out, if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, max(0.0, self._due_at - self._clock()))
            self._is_running = not self._is_closed and self._clock() - self._asked_at < _ASKED_SECONDS
            self._began_at = self._clock() if self._is_running else None
            return self._is_running

    def _poll_once(self) -> None:
        found, is_found = None, False
        try:
            found, is_found = self._poll(), True
        except FarmError as error:
            log.debug("look failed", reason=str(error))  # the last result stays, with its age
        except Exception:  # an edge: a failed poll must not end the others
            log.exception("look failed")
        with self._changed:
            now = self._clock()
            if is_found:
                self._value, self._looked_at = found, now
            self._began_at, self._due_at = None, now + self._seconds(self._value)
            self._changed.notify_all()
