"""Makes the latest preview of each image, on a thread of its own that takes little time from the renders."""

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

MakePreview = Callable[[], Pixels]

SECONDS: Final = 0.25  # between two previews of a worker
SHARE: Final = 1 / 20  # of this process's time, so that renders on the CPU lose no more than that


class PreviewQueue:
    """Makes previews one at a time, at most four a second; the image that has waited longest comes first.

    A newer step of an image replaces one that waits.
    """

    def __init__(self, publish: Callable[[int, int, bytes], object]) -> None:
        """`publish` takes a job, an index and a WebP."""
        self._publish = publish
        self._changed = Condition()
        self._waiting: OrderedDict[tuple[int, int], MakePreview] = OrderedDict()  # (job, index)
        self._is_stopped = Event()
        self._thread = Thread(target=self._run, name="preview", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the preview that it makes; previews that wait are dropped."""
        self._is_stopped.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, claim: Claim, make: MakePreview) -> None:
        """Queue the preview that `make` returns. Returns at once, because the engine's thread calls it."""
        with self._changed:
            self._waiting[claim.job_id, claim.index] = make
            self._changed.notify_all()

    def drop(self, claim: Claim) -> None:
        """Forget the preview of `claim` that waits."""
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
            try:
                self._publish(job, index, encode.preview(make()))
            except Exception:  # an edge: a preview fails nothing, least of all the previews after it
                log.exception("preview failed", job=job, index=index)
            del make  # it holds tensors and weights, and the next one may come much later
            used = time.thread_time() - own
            while rest := pause(used, time.monotonic() - began, time.process_time() - whole):
                if self._is_stopped.wait(rest):
                    break


def pause(used: float, since: float, process_used: float) -> float:
    """Return for how many seconds to make no preview, after which to call this again; 0: the next one may be made.

    The last preview used `used` seconds of a processor. It began `since` seconds ago, and since then the whole process
    has used `process_used` seconds: far fewer if others use the machine too, or more on many processors.
    """
    rest = max(SECONDS - since, used / SHARE - since)
    return max(0.0, rest, SECONDS if process_used < used / SHARE else 0.0)
