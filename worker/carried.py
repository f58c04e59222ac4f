"""The images that this worker carries now, shared by its slots, its beat and whoever cancels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


class Carried:
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

    def cancel(self, images: Iterable[int] | None = None) -> None:
        """Close the runs of `images`, or all of them. Unknown ids are no error: they have ended here."""
        wanted = None if images is None else frozenset(images)
        self._close_runs(lambda image, _: wanted is None or image in wanted)

    def drop(self, attempts: Mapping[int, int]) -> None:
        """Close the runs of these attempts and older ones; a younger one, claimed since, is not meant."""
        self._close_runs(lambda image, attempt: attempt <= attempts.get(image, 0))

    def _close_runs(self, is_meant: Callable[[int, int], bool]) -> None:
        with self._lock:
            flags = [flag for key, flag in self._open.items() if is_meant(*key)]
        for flag in flags:
            flag.set()
