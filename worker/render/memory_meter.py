"""The memory that images need of the card: of single ones, booked for the farm, and of all that are in flight here.

A single image is measured while nothing else uses the card. What those in flight need together, beside the models, is
the most of the latest images; of a kind that was not measured yet it is estimated.

Peaks are taken of spans in which the models on the card stay the same. The peak of a span less its models is what the
images in it needed. Over a whole image, no single figure of the models would do: with the least, models that left would
count as need, and with the most, an image that only found room after they left would seem to need too little.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(eq=False)
class _Image:
    """An image that is rendered now."""

    other_bytes: int = 0  # of the card at its beginning, beside the models
    need: int = 0  # the most so far, beside the models


class MemoryMeter:
    """Books the peak of the card's memory over images that nothing else disturbed. Threads may share it.

    No more is booked than the card `offers`: a peak may pass that, yet the card could render the image.
    `resident_bytes` says what all models on the card take, with those that are being loaded.
    """

    def __init__(  # noqa: PLR0913 - what it measures, where it books, and the clock of tests
        self,
        device: Device,
        sessions: Sessions,
        precision: Precision = "half",
        offers: int | None = None,
        *,
        resident_bytes: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._sessions = sessions
        self._precision = precision
        self._most = math.inf if offers is None else offers
        self._clock = clock
        self._resident_bytes = resident_bytes
        self._lock = Lock()  # of the images in flight: held for no call, because budgets are asked under other locks
        self._span_lock = Lock()  # of the spans and of what goes on in them
        self._span: MemoryPeak | None = None
        self._span_residents = 0
        self._images: list[_Image] = []
        self._others = 0
        self._is_disturbed = False
        self._in_flight: Counter[Footprint] = Counter()
        self._alone: dict[Footprint, int] = {}  # what one such image took last beside the models
        self._together: deque[int] = deque(maxlen=_TOGETHER)
        self._latest: dict[Footprint, deque[int]] = {}
        self._booked: dict[Footprint, _Booked] = {}

    @contextmanager
    def image(self, footprint: Footprint, weights_bytes: int) -> Iterator[None]:
        """Measure the image rendered in this block, with weights that are on the card already."""
        image = _Image()
        self._begin(image)
        try:
            yield
        except BaseException:
            self._end(image)
            raise
        is_alone = self._end(image)
        if not image.need:
            return
        self._together.append(image.need)
        if is_alone:
            taken = image.need - image.other_bytes
            self._alone[footprint] = taken
            self._book(footprint, int(min(weights_bytes + taken, self._most)))

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
        self._begin(None)
        try:
            yield
        finally:
            self._end(None)

    def residents_changed(self) -> None:
        """Begin a new span, because models have left the card or come to it."""
        with self._span_lock:
            self._next_span()

    def _begin(self, image: _Image | None) -> None:
        with self._span_lock:
            self._next_span()
            if image is None:
                self._others += 1
            else:
                self._images.append(image)
                image.other_bytes = self._span.before - self._span_residents if self._span else 0
            self._is_disturbed = len(self._images) + self._others > 1

    def _end(self, image: _Image | None) -> bool:
        """Return whether nothing else used the card since the beginning."""
        with self._span_lock:
            self._next_span()
            if image is None:
                self._others -= 1
            else:
                self._images.remove(image)
            return not self._is_disturbed

    def _next_span(self) -> None:
        """Tell the images what the span showed that ends, unless something else took memory in it: that is no need."""
        if self._span and not self._others:
            need = self._span.total_bytes() - self._span_residents
            for image in self._images:
                image.need = max(image.need, need)
        self._span_residents = self._resident_bytes()
        self._span = MemoryPeak.since_now(self._device)

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
