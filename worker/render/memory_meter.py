"""The memory that images need of the card: of single ones, booked for the farm, and of all that are in flight here.

A single image is measured while nothing else uses the card. What those in flight need together, beside the models, is
the most of the latest images; of a kind that was not measured yet it is estimated.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Final, NamedTuple

import structlog

from shared.db.sessions import Sessions, transact
from shared.errors import Unavailable
from shared.models import memory
from shared.models.memory import Footprint, Precision
from worker.engine.devices import Device, MemoryPeak

log = structlog.get_logger(__name__)

_TOGETHER: Final = 64  # latest images, the most of whose need in company counts
_MEASURED: Final = 8  # images of a kind, the most of which is booked: some of a memory class need less than others
_DIFFERENCE: Final = 0.02  # share of what is booked by which it must change to be worth a write
_AGAIN_SECONDS: Final = 60.0  # after which an unchanged figure is written again: another worker may have booked its own


class _Booked(NamedTuple):
    bytes: int
    at: float  # of the clock


class MemoryMeter:
    """Books the peak of the card's memory over images that nothing else disturbed. Threads may share it.

    No more is booked than the card `offers`: a peak may pass that, yet the card could render the image.
    """

    def __init__(
        self,
        device: Device,
        sessions: Sessions,
        precision: Precision = "half",
        offers: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._sessions = sessions
        self._precision = precision
        self._most = math.inf if offers is None else offers
        self._clock = clock
        self._lock = Lock()
        self._busy = 0
        self._is_disturbed = False
        self._in_flight: Counter[Footprint] = Counter()
        self._alone: dict[Footprint, int] = {}  # what one such image took last beside the models
        self._together: deque[int] = deque(maxlen=_TOGETHER)
        self._latest: dict[Footprint, deque[int]] = {}
        self._booked: dict[Footprint, _Booked] = {}

    @contextmanager
    def image(
        self, footprint: Footprint, weights_bytes: int, resident_bytes: Callable[[], int] | None = None
    ) -> Iterator[None]:
        """Measure the image rendered in this block, with weights that are on the card already.

        `resident_bytes` says what all models on the card take at its end; default: there are no others.
        """
        peak = self._begin()
        try:
            yield
        except BaseException:
            self._end()
            raise
        is_alone = self._end()
        if peak is None:
            return
        self._together.append(peak.total_bytes() - (resident_bytes() if resident_bytes else weights_bytes))
        if is_alone:
            self._alone[footprint] = peak.bytes()
            self._book(footprint, int(min(weights_bytes + peak.bytes(), self._most)))

    @contextmanager
    def in_flight(self, footprint: Footprint) -> Iterator[None]:
        """Count an image that is rendered, or waits for its models, in this block."""
        with self._lock:
            self._in_flight[footprint] += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= Counter([footprint])

    def working_bytes(self) -> int:
        """Return what the images in flight need of the card beside the models."""
        with self._lock:
            kinds = list(self._in_flight)
        single = (self._alone.get(kind) or memory.working_bytes(kind.memory_class) for kind in kinds)
        return max([*tuple(self._together), *single], default=0)

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
            return MemoryPeak.since_now(self._device)

    def _end(self) -> bool:
        """Return whether nothing else used the card since the beginning."""
        with self._lock:
            self._busy -= 1
            return not self._is_disturbed

    def _book(self, footprint: Footprint, measured: int) -> None:
        """Book the most that the latest images of this kind took, if that has changed or was booked long ago."""
        latest = self._latest.setdefault(footprint, deque(maxlen=_MEASURED))
        latest.append(measured)
        now, most = self._clock(), max(latest)
        booked = self._booked.get(footprint, _Booked(0, -math.inf))
        is_changed = abs(most - booked.bytes) >= _DIFFERENCE * booked.bytes
        if not is_changed and now - booked.at < _AGAIN_SECONDS:
            return
        try:
            book = partial(memory.book, footprint=footprint, measured=most, precision=self._precision)
            transact(self._sessions, book)
        except Unavailable:
            return  # another image of its kind will come
        self._booked[footprint] = _Booked(most, now)
        if is_changed:
            log.info("memory measured", **footprint._asdict(), precision=self._precision, bytes=most)
