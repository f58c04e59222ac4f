"""What single images need of the card's memory, measured while they have it to themselves, and told to the farm."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

import structlog

from shared.db.sessions import Sessions, transact
from shared.errors import Unavailable
from shared.models import memory
from shared.models.memory import Footprint, Precision
from worker.engine.devices import Device, MemoryPeak

log = structlog.get_logger(__name__)

_MEASURED: Final = 8  # images of a kind whose most is told: of one memory class some need less than others
_DIFFERENCE: Final = 0.02  # share of what was told by which it must change to be worth a write


class Meter:
    """Notes the peak of the card's memory over each image that nothing else disturbed. Threads may share it.

    What the card `offers` is the most that is noted: a peak may go past it, yet the card could do the image.
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
        """Say that something else takes memory in this block: what is rendered meanwhile is not measured."""
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
        """Return whether what ends had the card to itself, from its beginning on."""
        with self._lock:
            self._busy -= 1
            return not self._is_disturbed

    def _book(self, footprint: Footprint, measured: int) -> None:
        """Tell the farm the most of what the latest images of this kind took, where that has changed."""
        latest = self._latest.setdefault(footprint, deque(maxlen=_MEASURED))
        latest.append(measured)
        most, booked = max(latest), self._booked.get(footprint, 0)
        if abs(most - booked) < _DIFFERENCE * booked:
            return
        try:
            transact(self._sessions, lambda session: memory.book(session, footprint, most, self._precision))
        except Unavailable:
            return  # another image of its kind will come
        self._booked[footprint] = most
        log.info("memory measured", **footprint._asdict(), precision=self._precision, bytes=most)
