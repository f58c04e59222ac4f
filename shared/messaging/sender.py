"""Sends messages in the background: the caller neither waits nor fails if the receiver is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

import structlog

from shared.errors import explain

T = TypeVar("T")
log = structlog.get_logger()

_PAUSE_SECONDS: Final = 1.0  # after a failure, before the next try


class Sender(Generic[T]):
    """A bounded queue of messages by key, and the thread that delivers them.

    Messages of one key that have not left yet become one (`merge`; by default the newer one wins). Between two batches
    `gather_seconds` pass, so that many messages leave in few batches. Messages that find the queue full, or could not
    be delivered, are dropped and counted, because they are only hints.
    The thread starts with the first message, so after a fork.
    """

    def __init__(
        self,
        name: str,
        deliver: Callable[[Mapping[object, T]], None],
        *,
        merge: Callable[[T, T], T] = lambda _, new: new,
        capacity: int = 10_000,
        gather_seconds: float = 0.0,
    ) -> None:
        self._name = name
        self._deliver = deliver
        self._merge = merge
        self._capacity = capacity
        self._gather_seconds = gather_seconds
        self._waiting: dict[object, T] = {}  # in the order of their arrival
        self._lock = threading.Lock()
        # Three of them, so that a message wakes the thread only while it waits for one.
        self._has_some, self._has_left, self._closes = (threading.Condition(self._lock) for _ in range(3))
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_busy = False
        self.dropped = 0

    def put(self, key: object, message: T) -> None:
        """Send `message` soon. Never waits, never raises."""
        with self._lock:
            if key in self._waiting:
                self._waiting[key] = self._merge(self._waiting[key], message)
            elif len(self._waiting) < self._capacity and not self._is_closing:
                self._waiting[key] = message
            else:
                self.dropped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._has_some.notify()

    def flush(self, seconds: float) -> bool:
        """Wait until all messages have left or were dropped; False if that takes longer."""
        with self._lock:
            return self._has_left.wait_for(lambda: not (self._waiting or self._is_busy), seconds)

    def close(self, seconds: float = 2.0) -> None:
        """Deliver the waiting messages, within `seconds`, and end the thread."""
        with self._lock:
            self._is_closing = True
            self._has_some.notify()
            self._closes.notify()
        if self._thread:
            self._thread.join(seconds)

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001 - the edge of the thread: the next batch may go
                self._failed(batch, error)
            with self._lock:
                self._is_busy = False
                self._has_left.notify_all()
                self._closes.wait_for(lambda: self._is_closing, self._gather_seconds)

    def _next_batch(self) -> dict[object, T]:
        with self._lock:
            self._has_some.wait_for(lambda: self._waiting or self._is_closing)
            batch, self._waiting = self._waiting, {}
            self._is_busy = bool(batch)
            return batch

    def _failed(self, batch: Mapping[object, T], error: Exception) -> None:
        with self._lock:
            self.dropped += len(batch)
            log.warning("messages dropped", sender=self._name, count=len(batch), reason=explain(error))
            self._is_busy = False
            self._has_left.notify_all()
            self._closes.wait_for(lambda: self._is_closing, _PAUSE_SECONDS)
