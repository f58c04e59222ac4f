"""The images that this worker carries now, shared by its slots, its beat and whoever cancels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock

from shared.queue.claim import Claim


class Cancellation:
    """A flag that anyone may set once; who can act on it is told at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_set = False
        self._acts: list[Callable[[], object]] = []

    @property
    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            acts = [] if self._is_set else list(self._acts)
            self._is_set = True
        for act in acts:
            act()

    def then(self, act: Callable[[], object]) -> None:
        """Call `act` when the flag is set, now if it is."""
        with self._lock:
            self._acts.append(act)
            is_late = self._is_set
        if is_late:
            act()

    def forget(self) -> None:
        """Tell nobody who was to be told so far: what they hold of a render that has ended is let go."""
        with self._lock:
            self._acts.clear()


class InFlight:
    """Every image between its claim and its commit here, each with the flag that closes its run."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[tuple[int, int], Cancellation] = {}  # (image id, attempt)

    def __len__(self) -> int:
        return len(self._open)

    def open(self, claim: Claim) -> Cancellation:
        with self._lock:
            return self._open.setdefault((claim.image_id, claim.attempt), Cancellation())

    def close(self, claim: Claim) -> None:
        with self._lock:
            self._open.pop((claim.image_id, claim.attempt), None)

    def attempts(self) -> dict[int, int]:
        """Return image id -> attempt, the latest one while an older one is still being closed."""
        with self._lock:
            return dict(sorted(self._open))

    def drop(self, attempts: Mapping[int, int]) -> None:
        """Close the runs of these attempts (by image id) and older ones; a younger one, claimed since, is not meant."""
        with self._lock:
            flags = [flag for (image, attempt), flag in self._open.items() if attempt <= attempts.get(image, 0)]
        for flag in flags:
            flag.set()
