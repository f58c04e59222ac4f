"""Previews as they are shown: the latest of each image, on a thread of its own that takes little from the renders."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Condition, Event, Thread
from typing import Final

import structlog

from shared.queue.claim import Claim
from worker import encode
from worker.encode import Pixels

log = structlog.get_logger(__name__)

Make = Callable[[], Pixels]

SECONDS: Final = 0.25  # between two previews of a worker
SHARE: Final = 1 / 20  # of this process's time: where renders have no card of their own, they lose no more than that


class PreviewQueue:
    """Makes previews one at a time, at most four a second; the image that has waited longest comes first.

    A newer step of an image takes the place of one that waits.
    """

    def __init__(self, put: Callable[[int, int, bytes], object]) -> None:
        """`put` is given a job, an index and a WebP."""
        self._put = put
        self._changed = Condition()
        self._waiting: OrderedDict[tuple[int, int], Make] = OrderedDict()  # (job, index)
        self._is_stopped = Event()
        self._thread = Thread(target=self._run, name="preview", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the preview that it makes; what waits is let go."""
        self._is_stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def show(self, claim: Claim, make: Make) -> None:
        """Have what `make` returns shown when its turn comes. Returns at once: the engine's thread calls it."""
        with self._changed:
            self._waiting[claim.job_id, claim.index] = make
            self._changed.notify_all()

    def drop(self, claim: Claim) -> None:
        """Forget what waits for `claim`."""
        with self._changed:
            self._waiting.pop((claim.job_id, claim.index), None)

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_stopped.is_set())
                if not self._waiting:
                    return
                (job, index), make = self._waiting.popitem(last=False)
            began, own, whole = time.monotonic(), time.thread_time(), time.process_time()
            self._make(job, index, make)
            del make  # it holds tensors and weights, and the next one may be long in coming
            used = time.thread_time() - own
            while rest := pause(used, time.monotonic() - began, time.process_time() - whole):
                if self._is_stopped.wait(rest):
                    break

    def _make(self, job: int, index: int, make: Make) -> None:
        try:
            self._put(job, index, encode.preview(make()))
        except Exception:  # an edge: a preview fails nothing, least of all the previews after it
            log.exception("preview failed", job=job, index=index)


def pause(used: float, since: float, process_used: float) -> float:
    """Return for how many seconds to make no preview, and then to ask again; 0: the next one may be made.

    The last one used so many seconds of a processor. It began `since` seconds ago, in which the whole process used
    `process_used`: far less than a processor's where others use the machine too, or more on many processors.
    """
    rest = max(SECONDS - since, used / SHARE - since)
    return max(0.0, rest, SECONDS if process_used < used / SHARE else 0.0)
