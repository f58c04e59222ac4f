"""A worker whose memory grows although it does the same as before ends and is started again before it must be killed.

The bound: over 200 images without a checkpoint that is new to the process, memory beside the models has grown by more
than a tenth of what the process may have, and by more than 1 GB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from shared.quantities import counted, data_size
from worker.context import Worker
from worker.render import host_memory

IMAGES: Final = 200  # without a new checkpoint, before a growth counts
SETTLED: Final = 50  # of these, after which caches are full and the level is noted
SAMPLES: Final = 12  # heartbeats, the least of which is the level: images in flight come and go
_SHARE: Final = 10  # one part in so many of the memory may be added
_LEAST_BYTES: Final = 2**30


class Creep:
    """Calls `on_creep` once, with the reason for people, if this process takes more and more memory."""

    def __init__(
        self,
        worker: Worker,
        images: Callable[[], int],
        on_creep: Callable[[str], object],
        measure: Callable[[], int] = host_memory.own_bytes,
    ) -> None:
        self._worker = worker
        self._images = images
        self._on_creep = on_creep
        self._measure = measure
        self._most_bytes = max(_LEAST_BYTES, host_memory.total_bytes() // _SHARE)
        self._known: set[str] = set()  # checkpoints that were resident
        self._begin = self._count = 0  # images rendered: since when nothing was new, and at the latest sample
        self._before: tuple[int, ...] | None = None
        self._samples: deque[tuple[int, int]] = deque(maxlen=SAMPLES)  # in all, and beside the models

    def run_once(self) -> None:
        """Sample the memory if an image was rendered since the latest sample, and compare it with the level before."""
        card, count = self._worker.card, self._images()
        if count == self._count:
            return
        self._count = count
        if new := set(card.resident()) - self._known:
            self._known |= new
            self._begin, self._before = count, None
            self._samples.clear()
        own = self._measure()
        self._samples.append((own, own - card.host_bytes))
        rendered, level = count - self._begin, tuple(map(min, zip(*self._samples, strict=True)))
        if self._before is None and rendered >= SETTLED:
            self._before = level
            self._samples.clear()
        elif self._before is not None and rendered >= IMAGES and len(self._samples) == SAMPLES:
            # Memory that the driver pins for the host's copies may not count as the process's own, so both must grow.
            self._compare(rendered, min(now - before for now, before in zip(level, self._before, strict=True)))

    def _compare(self, rendered: int, grown: int) -> None:
        if grown > self._most_bytes:
            self._on_creep(
                f"its memory grew by {data_size(grown)} over {counted(rendered, 'image')} of the same models"
            )
            self._most_bytes *= 2  # it ends now; should that take long, nothing is said again and again
