"""The jobs that a worker leaves to others because it cannot read them, or a file of theirs."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Final, NamedTuple

from shared.queue.claim import Claim

MOST: Final = 1000  # jobs that are remembered; one that is forgotten is claimed once more


class _Left(NamedTuple):
    reason: str
    place: tuple[str, str]  # its owner and checkpoint
    until: float  # monotonic


class JobsLeft:
    """The jobs that are left to other workers, each for so many seconds, with the reasons. Threads may share it."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._left: OrderedDict[int, _Left] = OrderedDict()  # by job, the latest last

    def add(self, claim: Claim, reason: str) -> None:
        """Leave the job of `claim` to other workers from now on."""
        with self._lock:
            place = claim.owner, claim.checkpoint
            self._left[claim.job_id] = _Left(reason, place, time.monotonic() + self._seconds)
            self._left.move_to_end(claim.job_id)
            if len(self._left) > MOST:
                self._left.popitem(last=False)

    def reasons(self) -> Mapping[int, str]:
        """Return job id -> why it is left."""
        return {job_id: left.reason for job_id, left in self._now().items()}

    def places(self) -> frozenset[tuple[str, str]]:
        """Return the owners and checkpoints in whose lanes images of such jobs may wait."""
        return frozenset(left.place for left in self._now().values())

    def _now(self) -> Mapping[int, _Left]:
        with self._lock:
            now = time.monotonic()
            return {job_id: left for job_id, left in self._left.items() if left.until > now}
