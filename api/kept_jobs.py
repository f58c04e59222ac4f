"""What a process knows of the jobs that were asked for last."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Final

from shared.queue.explain import Waiting
from shared.queue.queries import JobView

_MOST: Final = 4096  # jobs
_MOST_BYTES: Final = 32 * 2**20  # of all of them
_LARGEST: Final = 2**20  # bytes of one that is kept: no job takes the place of very many others
_AS_OBJECTS: Final = 8  # times what a job takes as JSON, roughly
_TURNS: Final = 32  # at once; jobs share them


@dataclass(frozen=True)
class Answer:
    """A job as JSON, and the tag that tells it from other versions of it."""

    body: bytes
    tag: str


@dataclass(frozen=True)
class Running:
    """A job of which images run: each answer has their progress."""

    view: JobView
    waiting: Waiting | None
    bytes: int  # as JSON, without progress


@dataclass(frozen=True)
class KeptJob:
    """A job as it was read; it holds while its rows have `fingerprint`, and until `until` (monotonic)."""

    fingerprint: str
    until: float
    known: Answer | Running

    @property
    def bytes(self) -> int:
        """What it takes in memory, roughly."""
        return len(self.known.body) if isinstance(self.known, Answer) else self.known.bytes * _AS_OBJECTS


class KeptJobs:
    """Keeps jobs as long as there is room, and forgets those that were asked for longest ago. Safe for many threads."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[int, KeptJob] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()
        self._turns = [Lock() for _ in range(_TURNS)]

    def turn(self, job_id: int) -> Lock:
        """Return the lock of who looks for a job here, and reads it if it is not there."""
        return self._turns[job_id % _TURNS]

    def find(self, job_id: int, fingerprint: str, now: float) -> KeptJob | None:
        """Return what is kept of a job whose rows have this fingerprint, unless it is too old."""
        with self._lock:
            kept = self._jobs.get(job_id)
            if kept is None or kept.fingerprint != fingerprint or kept.until < now:
                return None
            self._jobs.move_to_end(job_id)
            return kept

    def keep(self, job_id: int, kept: KeptJob) -> None:
        """Keep a job instead of what was known of it, unless it is too large."""
        with self._lock:
            if before := self._jobs.pop(job_id, None):
                self._bytes -= before.bytes
            if kept.bytes > _LARGEST:
                return
            self._jobs[job_id] = kept
            self._bytes += kept.bytes
            while len(self._jobs) > _MOST or self._bytes > _MOST_BYTES:
                _, oldest = self._jobs.popitem(last=False)
                self._bytes -= oldest.bytes
