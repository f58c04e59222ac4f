"""Which checkpoints are in memory: loaded once however many images wait for them, the longest unused leaves first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
from typing import Generic, TypeVar

from shared.errors import Cancelled, OutOfMemory
from worker.carried import Cancellation

W = TypeVar("W")  # the engine's Weights; this module only keeps them


@dataclass
class _Resident(Generic[W]):
    """One checkpoint: on its way in until `weights` is there; not to be dropped while `users` hold it."""

    weights: W | None = None
    users: int = 0


class Residency(Generic[W]):
    """At most `capacity` checkpoints by SHA-256; `load` is called outside of any lock, once a checkpoint at a time."""

    def __init__(self, load: Callable[[str], W], capacity: int, on_change: Callable[[], object] | None = None) -> None:
        self._load = load
        self._capacity = capacity
        self._on_change = on_change or (lambda: None)
        self._residents: OrderedDict[str, _Resident[W]] = OrderedDict()  # longest unused first
        self._changed = Condition()
        self.load_seconds: float | None = None  # of the latest load, measured

    def resident(self) -> list[str]:
        """Return the SHA-256 of what is loaded."""
        with self._changed:
            return [sha256 for sha256, resident in self._residents.items() if resident.weights is not None]

    @contextmanager
    def use(self, sha256: str, cancel: Cancellation) -> Iterator[W]:
        """Hold the weights of checkpoint `sha256` within the block, loading them if need be.

        Waits while others load it, and for room while all residents are in use. Raises Cancelled when `cancel` is set
        meanwhile, and what `load` raises; OutOfMemory only where dropping what is unused did not help.
        """
        cancel.then(self._wake)
        resident, must_load = self._enter(sha256, cancel)
        try:
            yield self._fill(sha256, resident) if must_load else self._weights(resident)
        finally:
            with self._changed:
                resident.users -= 1
                self._changed.notify_all()

    def _enter(self, sha256: str, cancel: Cancellation) -> tuple[_Resident[W], bool]:
        """Return the resident, counted as its user, and whether it is for the caller to load."""
        with self._changed:
            while True:
                if cancel.is_set:
                    raise Cancelled("The image was cancelled while it waited for its checkpoint.")
                resident = self._residents.get(sha256)
                if resident is None and self._make_room():
                    resident = self._residents[sha256] = _Resident(users=1)
                    return resident, True
                if resident is not None and resident.weights is not None:
                    self._residents.move_to_end(sha256)
                    resident.users += 1
                    return resident, False
                self._changed.wait()

    def _make_room(self) -> bool:
        """Drop the longest unused until one more fits; False while too many are in use."""
        for sha256, resident in tuple(self._residents.items()):
            if len(self._residents) < self._capacity:
                break
            if resident.users == 0:
                del self._residents[sha256]
        return len(self._residents) < self._capacity

    def _fill(self, sha256: str, resident: _Resident[W]) -> W:
        started = time.monotonic()
        try:
            weights = self._loaded(sha256)
        except BaseException:
            with self._changed:  # those who wait try for themselves
                del self._residents[sha256]
                self._changed.notify_all()
            raise
        with self._changed:
            resident.weights = weights
            self.load_seconds = time.monotonic() - started
            self._changed.notify_all()
        self._on_change()
        return weights

    def _loaded(self, sha256: str) -> W:
        try:
            return self._load(sha256)
        except OutOfMemory:  # perhaps because of what nobody needs now
            if not self._drop_unused():
                raise
        return self._load(sha256)

    def _drop_unused(self) -> int:
        """Drop what is in nobody's use, and return how many that were."""
        with self._changed:
            unused = [sha256 for sha256, resident in self._residents.items() if resident.users == 0]
            for sha256 in unused:
                del self._residents[sha256]
            return len(unused)

    def _weights(self, resident: _Resident[W]) -> W:
        assert resident.weights is not None  # noqa: S101 - `_enter` waited for it
        return resident.weights

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
