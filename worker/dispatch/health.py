"""A worker that fails although others would not is sick: it drains itself, and says what to do.

There are two signs: images of several owners fail here one after the other with unexpected errors, or pictures came
out black or without numbers here and right on another worker.

The cause may be the same on all workers, so a pool's last workers go on, and say so.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Final

import structlog
from sqlalchemy import select

from shared.db.sessions import transact
from shared.db.states import FINAL, ImageState
from shared.db.tables import Image
from shared.errors import Unavailable
from shared.queue import drains
from shared.queue.claim import Claim
from worker.context import Worker

log = structlog.get_logger(__name__)

FAILURES: Final = 3  # in a row, of more than one owner: the images of one may all have the same fault
SPOILT: Final = 2  # pictures spoilt here and right elsewhere, within an hour
_HOUR_SECONDS: Final = 3600.0


class Health:
    """Collects the failures of one worker's slots; `check` looks up, now and then, the images that were spoilt here."""

    def __init__(self, worker: Worker) -> None:
        self.images = 0  # that came out right
        self._worker = worker
        self._lock = Lock()
        self._failed: list[str] = []  # owners, since the latest picture that came out right
        self._suspects: set[int] = set()  # ids of images that were spoilt here and are tried elsewhere
        self._spoilt_at: deque[float] = deque(maxlen=SPOILT)  # when one of them came out right elsewhere
        self._went_on_at: float | None = None  # when it was found sick and went on

    def rendered(self) -> None:
        """A picture came out right."""
        with self._lock:
            self.images += 1
            self._failed.clear()

    def failed(self, claim: Claim, reason: str) -> None:
        """An image failed with an unexpected error."""
        with self._lock:
            self._failed.append(claim.owner)
            is_sick = len(self._failed) >= FAILURES and len(set(self._failed)) > 1
        if is_sick:
            self._drain(f"{FAILURES} images or more of several owners failed here in a row, the last because {reason}")

    def spoilt(self, claim: Claim) -> None:
        """A picture came out black or without numbers, and is tried on another worker."""
        with self._lock:
            self._suspects.add(claim.image_id)

    def run_once(self) -> None:
        """Count the suspects that came out right elsewhere, not those that failed there too or were cancelled."""
        if self._went_on_at is not None and time.monotonic() - self._went_on_at > _HOUR_SECONDS:
            self._went_on_at = self._worker.trouble = None
        with self._lock:
            suspects = set(self._suspects)
        if not suspects:
            return
        query = select(Image.id, Image.state, Image.worker).where(Image.id.in_(suspects))
        with suppress(Unavailable):
            rows = transact(self._worker.sessions, lambda session: session.execute(query).all())
            with self._lock:
                self._suspects -= suspects - {image_id for image_id, state, _ in rows if state not in FINAL}
            for _, state, worker in rows:
                if state == ImageState.SUCCEEDED and worker != self._worker.name:
                    self._count_spoilt()

    def _count_spoilt(self) -> None:
        now = time.monotonic()
        self._spoilt_at.append(now)
        if len(self._spoilt_at) == SPOILT and now - self._spoilt_at[0] < _HOUR_SECONDS:
            self._spoilt_at.clear()
            self._drain(f"{SPOILT} pictures came out black or without numbers here and right on other workers")

    def _drain(self, symptom: str) -> None:
        worker = self._worker
        advice = f"see `farm logs workers`, try another card or restart the machine, then `farm resume {worker.name}`"
        reason = f"sick: {symptom}; {advice}"
        with self._lock:
            self._failed.clear()
        try:
            pool = transact(worker.sessions, partial(drains.drain_sick, worker_id=worker.id, reason=reason))
        except Unavailable:
            log.warning("sick, but the database is away: not drained", worker=worker.id, reason=reason)
            return
        if pool is None:
            log.error("sick: drained", worker=worker.id, reason=reason)
            worker.replace_drained(None, reason)  # a person's reason stays
            worker.trouble = None
        else:
            self._go_on(symptom, pool)

    def _go_on(self, symptom: str, pool: str) -> None:
        """Go on although sick, and say for an hour why."""
        worker = self._worker
        if not worker.trouble:
            log.error("sick, but too few others take images of a pool", worker=worker.id, pool=pool, reason=symptom)
        self._went_on_at = time.monotonic()
        worker.trouble = f"sick, but goes on: too few others take pictures of the pool {pool}"
