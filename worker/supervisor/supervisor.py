"""One process a card: started, watched, its images given back when it dies, and restarted. No torch here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from shared.db.sessions import Sessions, transact
from shared.errors import Unavailable
from shared.queue import reaper
from shared.waiting.signals import SignalPipe
from worker.supervisor.child import Child, Death
from worker.supervisor.clock_guard import Punctuality
from worker.supervisor.gpus import Address

log = structlog.get_logger(__name__)

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_LOOK_SECONDS: Final = 1.0  # at most, between two looks at what the workers say that they are busy with
_MARGIN_SECONDS: Final = 5.0  # after its grace time a child hands back by itself; KILL is for one that cannot
_KILL_AGAIN_SECONDS: Final = 10.0  # what the kernel cannot end yet, as a driver hangs, is waited for
_THREADS: Final = "OMP_NUM_THREADS"
_AGAIN_SECONDS: Final = 2.0  # while the database is away; the lease ends the wait in any case


def threads_each(workers: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that leaves each of several workers its share of the cores, unless a person has set it.

    One worker alone keeps what its libraries take by themselves.
    """
    if workers < 2 or environ.get(_THREADS):
        return {}
    return {_THREADS: str(max(1, len(os.sched_getaffinity(0)) // workers))}


def _options(card: Address) -> list[str]:
    """Return what tells a process to serve `card`: all there is to know of it, so that it asks nobody."""
    known = ["--uuid", card.uuid, f"--label={card.label}"] if card.uuid else []
    return ["--card", card.name, *known, "--parent", str(os.getpid())]


class Supervisor:
    """The parent of the workers of one machine."""

    def __init__(
        self, cards: Sequence[Address], command: Sequence[str], sessions: Sessions, grace_seconds: float
    ) -> None:
        threads = threads_each(len(cards), os.environ)
        self._children = [Child(card, [*command, *_options(card)], threads) for card in cards]
        self._sessions = sessions
        self._grace_seconds = grace_seconds
        self._dead: list[tuple[int, Death]] = []
        self._mark_at = 0.0
        self._asked = 0
        self._kill_at: float | None = None
        self._signals = SignalPipe((*_STOP, signal.SIGCHLD))
        self._punctuality = Punctuality(2 * _LOOK_SECONDS, time.monotonic)

    def run(self) -> int:
        """Keep the workers alive until a signal stops them; return the exit status."""
        with self._signals:
            self._run_once()
            while self._asked == 0 or any(child.is_alive for child in self._children):
                self._sleep()
                self._run_once()
        return 0

    def _run_once(self) -> None:
        self._punctuality.note()
        awake_since = time.monotonic() - self._punctuality.seconds()
        for child in self._children:
            child.end_if_hung(awake_since)
            death = child.reap()
            if death is not None and death.worker_id is not None:
                self._dead.append((death.worker_id, death))
            if self._asked == 0:
                child.start_when_due()
        self._mark_dead()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            self._send(signal.SIGKILL)
            self._kill_at = time.monotonic() + _KILL_AGAIN_SECONDS

    def _mark_dead(self) -> None:
        """Queue the images of dead workers again; a hang, or a death that we did not ask for, counts as a crash."""
        if not self._dead or time.monotonic() < self._mark_at:
            return
        try:
            while self._dead:
                self._mark_one(*self._dead[0])
                self._dead.pop(0)
        except Unavailable:
            self._mark_at = time.monotonic() + _AGAIN_SECONDS
            log.warning("database away: the images of a dead worker are queued again once it is back")

    def _mark_one(self, worker_id: int, death: Death) -> None:
        crashed = death.is_crash and (self._asked == 0 or bool(death.hang))
        remark = f"started again after {death.pause_seconds:g} s" if self._asked == 0 else ""
        images = transact(
            self._sessions,
            lambda session: reaper.mark_dead(
                session, worker_id, reason=death.reason, remark=remark, crashed=crashed, files=death.files
            ),
        )
        if images or death.is_crash:
            log.warning("declared dead", worker=worker_id, images=images, reason=death.reason)

    def _stop(self) -> None:
        """Pass a signal on: the first drains, the second hands back, the third kills, as the grace time does."""
        self._asked += 1
        now = time.monotonic()
        wait = {1: self._grace_seconds + _MARGIN_SECONDS, 2: _MARGIN_SECONDS}.get(self._asked, 0.0)
        self._kill_at = min(now + wait, self._kill_at or float("inf"))
        log.info("stopping", signal_count=self._asked, grace_seconds=self._grace_seconds)
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for child in self._children:
            child.send(number)

    def _sleep(self) -> None:
        """Wait for a signal (a child's death is one) or for the next thing that is due."""
        times = [child.due_at for child in self._children] if self._asked == 0 else [self._kill_at]
        times += [self._mark_at] if self._dead else []
        times += [time.monotonic() + _LOOK_SECONDS] if any(child.is_alive for child in self._children) else []
        due = min((at for at in times if at is not None), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        if self._signals.wait(timeout) in _STOP:
            self._stop()
