"""What a process knows of the jobs that were asked for last."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

from shared.queue.explain import Waiting
from shared.queue.queries import JobView

_MOST: Final = 256  # jobs
_TURNS: Final = 32  # at once; jobs share them


@dataclass(frozen=True)
class Answer:
    """A job as JSON, and the tag that tells it from other versions of it."""

    body: bytes
    tag: str


@dataclass(frozen=True)
class KeptJob:
    """A job as it was read; it holds while its rows are those of `rows`, and until `until` (monotonic)."""

    rows: str
    until: float
    view: JobView
    waiting: Waiting | None
    answer: Answer | None  # None while images run: their progress is not kept


class KeptJobs:
    """Keeps some jobs, and forgets those that were asked for longest ago. Safe for many threads."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[int, KeptJob] = OrderedDict()
        self._lock = Lock()
        self._turns = [Lock() for _ in range(_TURNS)]

    def turn(self, job_id: int) -> Lock:
        """Return the lock of who looks for a job here, and reads it if it is not there."""
        return self._turns[job_id % _TURNS]

    def find(self, job_id: int, rows: str, now: float) -> KeptJob | None:
        """Return what is kept of a job with these rows, unless it is too old."""
        with self._lock:
            kept = self._jobs.get(job_id)
            if kept is None or kept.rows != rows or kept.until < now:
                return None
            self._jobs.move_to_end(job_id)
            return kept

    def keep(self, job_id: int, kept: KeptJob) -> None:
        """Keep a job instead of what was known of it."""
        with self._lock:
            self._jobs[job_id] = kept
            self._jobs.move_to_end(job_id)
            if len(self._jobs) > _MOST:
                self._jobs.popitem(last=False)
