"""The jobs that this worker cannot read because a newer version wrote them: workers of that version render them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Final

from shared.queue.claim import Claim
from shared.queue.policy import Lane

MOST: Final = 1000  # jobs that are remembered; one that is forgotten is claimed once more


class UnreadableJobs:
    """The jobs that this version does not understand, with the reasons. Threads may share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._reasons: OrderedDict[int, str] = OrderedDict()  # job -> what is not understood
        self._places: dict[int, tuple[str, str]] = {}  # job -> its owner and checkpoint

    def add(self, claim: Claim, reason: str) -> None:
        """Leave the job of `claim` to other workers from now on."""
        with self._lock:
            self._reasons[claim.job_id] = reason
            self._places[claim.job_id] = claim.owner, claim.checkpoint
            if len(self._reasons) > MOST:
                oldest, _ = self._reasons.popitem(last=False)
                del self._places[oldest]

    def reasons(self) -> Mapping[int, str]:
        """Return job id -> what is not understood."""
        with self._lock:
            return dict(self._reasons)

    def may_wait_in(self, lane: Lane) -> bool:
        """Return whether images of such a job may wait in `lane`."""
        with self._lock:
            return (lane.owner, lane.checkpoint) in self._places.values()
