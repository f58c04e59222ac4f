"""A worker that fails where others would not is sick: it drains itself, and says what to do.

Two things tell of it: images of several owners that fail here one after the other in ways that nobody expected, and
pictures that came out black or without numbers here and right on another worker.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from threading import Lock
from typing import Final

import structlog
from sqlalchemy import select

from shared.database import transact
from shared.errors import Unavailable
from shared.queue import drains
from shared.queue.claim import Claim
from shared.states import FINAL, ImageState
from shared.tables import Image
from worker.worker import Worker

log = structlog.get_logger(__name__)

FAILURES: Final = 3  # in a row, of more than one owner: one owner's may all be bad in the same way
SPOILT: Final = 2  # pictures spoilt here and right elsewhere, within an hour
_HOUR_SECONDS: Final = 3600.0


class Health:
    """What the slots of one worker have seen. `turn` asks now and then what became of the pictures spoilt here."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._lock = Lock()
        self._failed: list[str] = []  # owners, since the latest picture that came out right
        self._suspects: set[int] = set()  # ids of images that were spoilt here and are tried elsewhere
        self._spoilt_at: deque[float] = deque(maxlen=SPOILT)  # when one of them came out right elsewhere

    def rendered(self) -> None:
        """A picture came out right."""
        with self._lock:
            self._failed.clear()

    def failed(self, claim: Claim, reason: str) -> None:
        """An image failed in a way that nobody expected."""
        with self._lock:
            self._failed.append(claim.owner)
            is_sick = len(self._failed) >= FAILURES and len(set(self._failed)) > 1
        if is_sick:
            self._drain(f"{FAILURES} images or more of several owners failed here in a row, the last because {reason}")

    def spoilt(self, claim: Claim) -> None:
        """A picture came out black or without numbers, and is tried on another worker."""
        with self._lock:
            self._suspects.add(claim.image_id)

    def turn(self) -> None:
        """Count what came out right elsewhere. What failed there as well, or was cancelled, says nothing."""
        with self._lock:
            suspects = set(self._suspects)
        if not suspects:
            return
        tried = select(Image.id, Image.state, Image.worker).where(Image.id.in_(suspects))
        with suppress(Unavailable):
            rows = transact(self._worker.sessions, lambda session: session.execute(tried).all())
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

    def _drain(self, what: str) -> None:
        name = self._worker.name
        advice = f"see `farm logs workers`, try another card or restart the machine, then `farm resume {name}`"
        reason = f"sick: {what}; {advice}"
        with self._lock:
            self._failed.clear()
        log.error("sick: drains itself", worker=self._worker.id, reason=reason)
        try:
            transact(self._worker.sessions, lambda session: drains.drain(session, [name], reason))
        except Unavailable:
            log.warning("the database is away: not drained", worker=self._worker.id)
        else:
            self._worker.drained = reason
