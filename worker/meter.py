"""What single images need of the card's memory, measured while they have it to themselves, and told to the farm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

import structlog

from shared.db.sessions import Sessions, transact
from shared.errors import Unavailable
from shared.models import memory
from worker.engine.devices import Device, MemoryPeak

log = structlog.get_logger(__name__)

_MORE: Final = 1.02  # by less than this a new most is not worth a write


class Meter:
    """Notes the peak of the card's memory over each image that nothing else disturbed. Threads may share it.

    What the card `offers` is the most that is noted: a peak may go past it, yet the card could do the image.
    """

    def __init__(self, device: Device, sessions: Sessions, offers: int | None = None) -> None:
        self._device = device
        self._sessions = sessions
        self._most = math.inf if offers is None else offers
        self._lock = Lock()
        self._busy = 0
        self._is_disturbed = False
        self._noted: dict[memory.Place, int] = {}

    @contextmanager
    def image(self, place: memory.Place, weights_bytes: int) -> Iterator[None]:
        """Measure the image rendered in this block, with weights that are on the card already."""
        peak = self._begin()
        try:
            yield
        except BaseException:
            self._end()
            raise
        if self._end() and peak is not None:
            self._note(place, int(min(weights_bytes + peak.bytes(), self._most)))

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

    def _note(self, place: memory.Place, measured: int) -> None:
        if measured < _MORE * self._noted.get(place, 0):
            return
        try:
            transact(self._sessions, lambda session: memory.note(session, place, measured))
        except Unavailable:
            return  # another image of its kind will come
        self._noted[place] = measured
        log.info("memory measured", checkpoint=place[0], memory_class=place[1], bytes=measured)
