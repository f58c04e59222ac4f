"""The images that this worker runs now, shared by its slots, its heartbeat and those who cancel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

from shared.queue.claim import Claim


class Cancellation:
    """A flag that any thread may set, once; setting it calls those who wait for it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_set = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            callbacks = [] if self._is_set else list(self._callbacks)
            self._is_set = True
        for callback in callbacks:
            callback()

    def then(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the flag is set, at once if it is set already."""
        with self._lock:
            self._callbacks.append(callback)
            is_late = self._is_set
        if is_late:
            callback()

    def forget(self) -> None:
        """Drop all callbacks, and with them what they hold of a render that has ended."""
        with self._lock:
            self._callbacks.clear()


class InFlight:
    """Every image between its claim and its commit here, each with the flag that cancels its run."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._flags: dict[tuple[int, int], Cancellation] = {}  # (image id, attempt)

    def __len__(self) -> int:
        return len(self._flags)

    def open(self, claim: Claim) -> Cancellation:
        with self._lock:
            return self._flags.setdefault((claim.image_id, claim.attempt), Cancellation())

    def close(self, claim: Claim) -> None:
        with self._lock:
            self._flags.pop((claim.image_id, claim.attempt), None)

    def attempts(self) -> dict[int, int]:
        """Return image id -> attempt, the latest one while an older one is still being closed."""
        with self._lock:
            return dict(sorted(self._flags))

    def cancel(self, attempts: Mapping[int, int]) -> None:
        """Cancel these attempts (by image id) and older ones; a younger one, claimed since, goes on."""
        with self._lock:
            flags = [flag for (image, attempt), flag in self._flags.items() if attempt <= attempts.get(image, 0)]
        for flag in flags:
            flag.set()
