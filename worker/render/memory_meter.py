"""The memory that single images need of the card, measured while nothing else uses it, and booked for the farm."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Final

import structlog

from shared.db.sessions import Sessions, transact
from shared.errors import Unavailable
from shared.models import memory
from shared.models.memory import Footprint, Precision
from worker.engine.devices import Device, MemoryPeak

log = structlog.get_logger(__name__)

_MEASURED: Final = 8  # images of a kind, the most of which is booked: some of a memory class need less than others
_DIFFERENCE: Final = 0.02  # share of what is booked by which it must change to be worth a write


class MemoryMeter:
    """Books the peak of the card's memory over images that nothing else disturbed. Threads may share it.

    No more is booked than the card `offers`: a peak may pass that, yet the card could render the image.
    """

    def __init__(
        self, device: Device, sessions: Sessions, precision: Precision = "half", offers: int | None = None
    ) -> None:
        self._device = device
        self._sessions = sessions
        self._precision = precision
        self._most = math.inf if offers is None else offers
        self._lock = Lock()
        self._busy = 0
        self._is_disturbed = False
        self._latest: dict[Footprint, deque[int]] = {}
        self._booked: dict[Footprint, int] = {}

    @contextmanager
    def image(self, footprint: Footprint, weights_bytes: int) -> Iterator[None]:
        """Measure the image rendered in this block, with weights that are on the card already."""
        peak = self._begin()
        try:
            yield
        except BaseException:
            self._end()
            raise
        if self._end() and peak is not None:
            self._book(footprint, int(min(weights_bytes + peak.bytes(), self._most)))

    @contextmanager
    def other(self) -> Iterator[None]:
        """Say that something else takes memory in this block: images rendered meanwhile are not measured."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    def _begin(self) -> MemoryPeak | None:
        with self._lock:
            self._busy += 1
            self._is_disturbed = self._busy > 1
            return None if self._is_disturbed else MemoryPeak.since_now(self._device)

    def _end(self) -> bool:
        """Return whether nothing else used the card since the beginning."""
        with self._lock:
            self._busy -= 1
            return not self._is_disturbed

    def _book(self, footprint: Footprint, measured: int) -> None:
        """Book the most that the latest images of this kind took, if that has changed."""
        latest = self._latest.setdefault(footprint, deque(maxlen=_MEASURED))
        latest.append(measured)
        most, booked = max(latest), self._booked.get(footprint, 0)
        if abs(most - booked) < _DIFFERENCE * booked:
            return
        try:
            book = partial(memory.book, footprint=footprint, measured=most, precision=self._precision)
            transact(self._sessions, book)
        except Unavailable:
            return  # another image of its kind will come
        self._booked[footprint] = most
        log.info("memory measured", **footprint._asdict(), precision=self._precision, bytes=most)
