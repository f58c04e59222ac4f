"""One process a card: started, watched, marked dead when it dies, and restarted. No torch, no queue, no database."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import structlog

from shared.errors import Unavailable
from shared.waiting.signals import SignalPipe
from worker.supervisor.child import Child, Death
from worker.supervisor.clock_guard import ClockGuard
from worker.supervisor.gpus import Address

log = structlog.get_logger(__name__)

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_POLL_SECONDS: Final = 1.0  # at most, between two reads of what the workers report
_MARGIN_SECONDS: Final = 5.0  # after its grace time a child hands back by itself; KILL is for one that cannot
_KILL_AGAIN_SECONDS: Final = 10.0  # the kernel may be unable to end a process yet, for example while a driver hangs
_THREADS: Final = "OMP_NUM_THREADS"
_MARK_DEAD_AGAIN_SECONDS: Final = 2.0  # while the database is away; the lease ends the wait in any case


class MarkDead(Protocol):
    """Gives the images of a dead worker back."""

    def __call__(self, worker_id: int, death: Death, *, is_crash: bool, remark: str) -> int:
        """Return how many images it had; `is_crash` counts against them. Raises Unavailable."""


def threads_each(workers: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that leaves each of several workers its share of the cores, unless a person has set it.

    A single worker keeps what its libraries take by themselves.
    """
    if workers < 2 or environ.get(_THREADS):
        return {}
    return {_THREADS: str(max(1, len(os.sched_getaffinity(0)) // workers))}


class Supervisor:
    """The parent of the workers of one machine."""

    def __init__(
        self, cards: Sequence[Address], command: Sequence[str], mark_dead: MarkDead, grace_seconds: float
    ) -> None:
        threads = threads_each(len(cards), os.environ)
        parent = ["--parent", str(os.getpid())]
        self._children = [Child(card, [*command, *card.options(), *parent], threads) for card in cards]
        self._mark_dead = mark_dead
        self._grace_seconds = grace_seconds
        self._deaths: list[tuple[int, Death]] = []  # (worker's id, its end), not recorded yet
        self._mark_dead_at = 0.0
        self._stop_signals = 0
        self._kill_at: float | None = None
        self._signals = SignalPipe((*_STOP, signal.SIGCHLD))
        self._clock_guard = ClockGuard(2 * _POLL_SECONDS, time.monotonic)

    def run(self) -> int:
        """Keep the workers alive until a signal stops them; return the exit status.

        From then on the process ignores the signals that stop it, so that another one does not end it in its cleanup.
        """
        self._signals.begin()
        self._poll()
        while self._stop_signals == 0 or any(child.is_alive for child in self._children):
            self._sleep()
            self._poll()
        for number in _STOP:
            signal.signal(number, signal.SIG_IGN)  # unlike a handler, Python leaves this in place until the end
        return 0

    def _poll(self) -> None:
        self._clock_guard.tick()
        awake_since = time.monotonic() - self._clock_guard.seconds_on_time()
        for child in self._children:
            child.end_if_hung(awake_since)
            death = child.reap()
            if death is not None and death.worker_id is not None:
                self._deaths.append((death.worker_id, death))
            if self._stop_signals == 0:
                child.start_when_due()
        self._record_deaths()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._send(signal.SIGKILL)
            self._kill_at = time.monotonic() + _KILL_AGAIN_SECONDS

    def _record_deaths(self) -> None:
        """Give the images of dead workers back."""
        if not self._deaths or time.monotonic() < self._mark_dead_at:
            return
        try:
            while self._deaths:
                self._record(*self._deaths[0])
                self._deaths.pop(0)
        except Unavailable:
            self._mark_dead_at = time.monotonic() + _MARK_DEAD_AGAIN_SECONDS
            log.warning("database away: the images of a dead worker are queued again once it is back")

    def _record(self, worker_id: int, death: Death) -> None:
        """Mark one worker dead; a hang, or a crash that nobody asked for, counts against the images that ran."""
        is_stopping = self._stop_signals > 0
        is_crash = death.is_crash and (not is_stopping or bool(death.hang))
        remark = "" if is_stopping else f"started again after {death.pause_seconds:g} s"
        images = self._mark_dead(worker_id, death, is_crash=is_crash, remark=remark)
        if images or death.is_crash:
            log.warning("declared dead", worker=worker_id, images=images, reason=death.reason)

    def _stop(self) -> None:
        """Pass a signal on: the first drains, the second hands back, the third kills, as the grace time does."""
        self._stop_signals += 1
        now = time.monotonic()
        wait = {1: self._grace_seconds + _MARGIN_SECONDS, 2: _MARGIN_SECONDS}.get(self._stop_signals, 0.0)
        self._kill_at = min(now + wait, self._kill_at or float("inf"))
        log.info("stopping", signal_count=self._stop_signals, grace_seconds=self._grace_seconds)
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for child in self._children:
            child.send(number)

    def _sleep(self) -> None:
        """Wait for a signal (a child's death is one) or for the next thing that is due."""
        times = [self._kill_at] if self._stop_signals else [child.due_at for child in self._children]
        times += [self._mark_dead_at] if self._deaths else []
        times += [time.monotonic() + _POLL_SECONDS] if any(child.is_alive for child in self._children) else []
        due = min((at for at in times if at is not None), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        if self._signals.wait(timeout) in _STOP:
            self._stop()
