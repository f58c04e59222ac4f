"""What a worker's process is busy with, and when that has taken so long that it is a hang. To be idle never is."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

READS_DECODER: Final = "load of a tiny decoder"
"""The phase of a read that goes on beside the steps it is to show."""

_TELL_SECONDS: Final = 0.5  # what goes on unchanged is told so often: it may be a call of some milliseconds


@dataclass(frozen=True)
class Stage:
    """One thing that a process is busy with: a load, a call of a network. Times are the machine's monotonic clock."""

    phase: str
    since: float
    limit_seconds: float
    file: str = ""  # SHA-256 of the model file that it reads: should the process end, it may be why

    def is_hung(self, now: float, since: float) -> bool:
        """Return whether it has outlasted its limit, as far as one can tell who was awake from `since` on."""
        return now - max(self.since, since) > self.limit_seconds

    def words(self, now: float) -> str:
        """Return what is wrong with it, for people."""
        return f"hung for {max(1, round(now - self.since))} s in {self.phase}"


def longest_due(stages: Iterable[Stage], now: float, since: float) -> Stage | None:
    """Return the stage that has hung for longest, or None."""
    return min((stage for stage in stages if stage.is_hung(now, since)), key=lambda stage: stage.since, default=None)


def suspects(stages: Iterable[Stage], hung: Stage | None = None) -> tuple[str, ...]:
    """Return the SHA-256 of the model files that ended a process that was busy with `stages`; none: an image did.

    Of a hang only what hung is to blame. Of a crash while images were in steps nobody can tell, and no file is struck,
    but for a tiny decoder: it is read beside steps only, and without it nothing but previews is coarser.
    """
    busy = [hung] if hung else list(stages)
    files = tuple(stage.file for stage in busy if stage.file)
    decoders = tuple(stage.file for stage in busy if stage.file and stage.phase == READS_DECODER)
    return decoders or (files if len(files) == len(busy) else ())


class Pulse:
    """The stages of this process. Those who do the work say what comes next; `tell` passes it on, and returns whether
    it got through. Every call returns at once.

    `factor` multiplies all limits.
    """

    def __init__(self, tell: Callable[[Collection[Stage]], bool] = lambda _: True, factor: float = 1.0) -> None:
        self._tell = tell
        self._factor = factor
        self._lock = Lock()
        self._stages: dict[str, Stage] = {}
        self._told: dict[str, Stage] | None = {}  # with `since` left out; None: nobody knows what was heard
        self._told_at = 0.0

    def busy(self, what: str, phase: str, limit_seconds: float, *, file: str = "") -> None:
        """Say that `what` begins with `phase` now and will say more within `limit_seconds`."""
        with self._lock:
            self._stages[what] = Stage(phase, time.monotonic(), limit_seconds * self._factor, file)
            self._pass_on()

    def idle(self, what: str) -> None:
        """Say that `what` waits for something to do, or has ended."""
        with self._lock:
            self._stages.pop(what, None)
            self._pass_on()

    def stages(self) -> tuple[Stage, ...]:
        with self._lock:
            return tuple(self._stages.values())

    def tell_again(self) -> None:
        """Pass on what did not get through before."""
        with self._lock:
            if self._told is None:
                self._pass_on()

    def _pass_on(self) -> None:
        now, stages = time.monotonic(), {what: replace(stage, since=0) for what, stage in self._stages.items()}
        if stages == self._told and (not stages or now - self._told_at < _TELL_SECONDS):
            return
        self._told = stages if self._tell(tuple(self._stages.values())) else None
        self._told_at = now
