"""Jobs that this worker cannot read because a newer version wrote them. It leaves them to workers of that version."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Final

from shared.queue.claim import Claim
from shared.queue.policy import Lane

MOST: Final = 1000  # jobs that are remembered; one that is forgotten is met once more


class Unread:
    """What this worker does not understand of each such job. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._jobs: OrderedDict[int, str] = OrderedDict()
        self._places: dict[int, tuple[str, str]] = {}  # job -> its owner and checkpoint

    def add(self, claim: Claim, what: str) -> None:
        """Leave the job of `claim` to others from now on."""
        with self._lock:
            self._jobs[claim.job_id] = what
            self._places[claim.job_id] = claim.owner, claim.checkpoint
            if len(self._jobs) > MOST:
                oldest, _ = self._jobs.popitem(last=False)
                del self._places[oldest]

    def jobs(self) -> Mapping[int, str]:
        """Return job -> what is not understood of it."""
        with self._lock:
            return dict(self._jobs)

    def has_some_of(self, lane: Lane) -> bool:
        """True if images of such a job may wait in `lane`."""
        with self._lock:
            return (lane.owner, lane.checkpoint) in self._places.values()
