"""The stages of a worker process, and the limits beyond which one counts as hung. Idle never does."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final

READS_DECODER: Final = "load of a tiny decoder"
"""The phase of a read that goes on beside the steps it is to show."""

_REPEAT_SECONDS: Final = 0.5  # between two reports of stages that have not changed: a call may take milliseconds


@dataclass(frozen=True)
class Stage:
    """One thing that a process is busy with: a load, a call of a network. Times are the machine's monotonic clock."""

    phase: str
    since: float
    limit_seconds: float
    file: str = ""  # SHA-256 of the model file that it reads: if the process dies, the file may be the cause

    def is_hung(self, now: float, awake_since: float) -> bool:
        """Return whether it has outlasted its limit; time before `awake_since`, when nobody watched, does not count."""
        return now - max(self.since, awake_since) > self.limit_seconds

    def description(self, now: float) -> str:
        """Return what is wrong with it, for people."""
        return f"hung for {max(1, round(now - self.since))} s in {self.phase}"


def longest_hung(stages: Iterable[Stage], now: float, awake_since: float) -> Stage | None:
    """Return the stage that has hung for longest, or None."""
    hung = (stage for stage in stages if stage.is_hung(now, awake_since))
    return min(hung, key=lambda stage: stage.since, default=None)


def suspects(stages: Iterable[Stage], hung: Stage | None = None) -> tuple[str, ...]:
    """Return the SHA-256 of the model files that ended a process that was busy with `stages`; empty if an image did.

    A hang is blamed on the stage that hung alone. If a process crashes while images are in steps, the cause cannot be
    known and no file is blamed. A tiny decoder is the exception: it is read beside steps only, and without it nothing
    but previews is coarser.
    """
    busy = [hung] if hung else list(stages)
    files = tuple(stage.file for stage in busy if stage.file)
    decoders = tuple(stage.file for stage in busy if stage.file and stage.phase == READS_DECODER)
    return decoders or (files if len(files) == len(busy) else ())


class Watchdog:
    """Keeps the stages of this process and passes them to `report`, which returns whether they got through.

    Threads say what they begin and when they are idle; every call returns at once. `factor` multiplies all limits.
    """

    def __init__(self, report: Callable[[Collection[Stage]], bool] = lambda _: True, factor: float = 1.0) -> None:
        self._report = report
        self._factor = factor
        self._lock = Lock()
        self._stages: dict[str, Stage] = {}
        self._reported: dict[str, Stage] | None = {}  # without `since`; None: the latest report did not get through
        self._reported_at = 0.0

    def busy(self, name: str, phase: str, limit_seconds: float, *, file: str = "") -> None:
        """Record that `name` begins with `phase` now and will report again within `limit_seconds`."""
        with self._lock:
            self._stages[name] = Stage(phase, time.monotonic(), limit_seconds * self._factor, file)
            self._report_changes()

    def idle(self, name: str) -> None:
        """Record that `name` has ended, or waits for something to do."""
        with self._lock:
            self._stages.pop(name, None)
            self._report_changes()

    def stages(self) -> tuple[Stage, ...]:
        with self._lock:
            return tuple(self._stages.values())

    def resend(self) -> None:
        """Report again if the latest report did not get through."""
        with self._lock:
            if self._reported is None:
                self._report_changes()

    def _report_changes(self) -> None:
        now, stages = time.monotonic(), {name: replace(stage, since=0) for name, stage in self._stages.items()}
        if stages == self._reported and (not stages or now - self._reported_at < _REPEAT_SECONDS):
            return
        self._reported = stages if self._report(tuple(self._stages.values())) else None
        self._reported_at = now
