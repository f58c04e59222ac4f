"""Questions of many threads to PostgreSQL, asked together: what comes while one is under way is the next one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedLookup(Generic[T]):
    """Looks up things by number. No answer is older than its question, and no thread is needed but those that ask."""

    def __init__(self, look_up: Callable[[Collection[int]], Mapping[int, T]]) -> None:
        self._look_up = look_up
        self._next: set[int] = set()  # what the next look-up is for
        self._found: Future[Mapping[int, T]] = Future()  # and what it will have found
        self._lock = Lock()
        self._looking = Lock()

    def ask(self, number: int) -> T | None:
        """Return what has this number, or None. Raises what the look-up raises."""
        with self._lock:
            found, is_first = self._found, not self._next
            self._next.add(number)
        if is_first:  # it asks for all that come until the look-up before has ended
            with self._looking:
                with self._lock:
                    numbers, self._next, self._found = self._next, set(), Future()
                try:
                    found.set_result(self._look_up(numbers))
                except BaseException as error:  # noqa: BLE001 - each of those who asked gets it
                    found.set_exception(error)
        return found.result().get(number)
