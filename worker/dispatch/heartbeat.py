"""The heartbeat renews the lease, compares what SQL says that this worker runs with what it runs, and marks workers
dead whose lease has run out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from shared.db.sessions import transact
from shared.errors import Unavailable
from shared.maintenance.deadlines import run_due
from shared.queue import reaper, transitions, workers
from worker.context import Worker
from worker.supervisor.clock_guard import ClockGuard, boot_clock

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 1.0  # while the database is away: the lease may not have ended when it is back


class Heartbeat:
    """Sends one heartbeat every `beat_seconds`; `on_dead` ends the process."""

    def __init__(self, worker: Worker, on_dead: Callable[[], object], clock: Callable[[], float] = boot_clock) -> None:
        self._worker = worker
        self._on_dead = on_dead
        self._clock = clock
        self._clock_guard = ClockGuard(worker.settings.beat_seconds, clock)  # ticks when a heartbeat was answered
        self._is_database_away = False
        self._missing: dict[tuple[int, int], float] = {}  # (image, attempt) in SQL but not here -> since when
        self._reap_at = clock() + worker.settings.lease_seconds

    def run_once(self) -> float | None:
        """Send one heartbeat and do what the answer asks for; return in how many seconds to send the next one, if that
        is not the usual time.
        """
        running, drained = self._worker.in_flight.attempts(), self._worker.drained
        try:
            answer = self._renew_lease(running)
            if answer is None:
                self._on_dead()
                return None
            self._set_database_away(is_away=False)
            self._clock_guard.tick()
            # A worker that has drained itself since keeps that: the next heartbeat brings it back from SQL.
            if self._worker.replace_drained(drained, answer.drained) and answer.drained != drained:
                event = "drained" if answer.drained else "resumed"
                log.warning(event, worker=self._worker.id, reason=answer.drained)
            self._worker.in_flight.cancel({image: running[image] for image in answer.drop if image in running})
            self._hand_back(answer.missing)
            self._reap()
            run_due(self._worker.sessions, self._worker.tickets, self._worker.events)
        except Unavailable:
            # Images go on: if the lease ends meanwhile, the fence decides whose picture counts.
            self._set_database_away(is_away=True)
            return min(_AGAIN_SECONDS, self._worker.settings.beat_seconds)
        return None

    def _renew_lease(self, running: dict[int, int]) -> workers.Heartbeat | None:
        worker = self._worker
        heartbeat = partial(
            workers.heartbeat,
            worker_id=worker.id,
            running=running,
            state=worker.reported_state,
            phase=worker.phase,
            resident=worker.card.resident(),
            models=worker.card.models(),
            load_seconds=worker.card.load_seconds,
            lease_seconds=worker.settings.lease_seconds,
            slots=worker.slots,
            memory_bytes=worker.card.memory_bytes,
            precision=worker.card.precision,
            unread=worker.unreadable_jobs.reasons(),
            broken_calls=worker.card.broken_calls,
            trouble=worker.reported_trouble,
        )
        return transact(worker.sessions, heartbeat)

    def _set_database_away(self, *, is_away: bool) -> None:
        if is_away != self._is_database_away:
            log.warning("database away" if is_away else "database back", worker=self._worker.id)
        self._is_database_away = is_away

    def _hand_back(self, missing: dict[int, int]) -> None:
        """Give back images that SQL has had here for the time of a heartbeat and no slot runs.

        An image that is missing for less may be a claim on its way. The number of heartbeats does not count, because
        they may follow one another at once.
        """
        now, running = self._clock(), self._worker.in_flight.attempts()
        self._missing = {pair: self._missing.get(pair, now) for pair in missing.items()}
        lost = {
            image: attempt
            for (image, attempt), since in self._missing.items()
            if now - since >= self._worker.settings.beat_seconds and running.get(image) != attempt
        }
        if lost:
            move = partial(transitions.hand_back, worker_id=self._worker.id, images=lost)
            transact(self._worker.sessions, move)
            log.warning("handed back images that no slot runs", worker=self._worker.id, images=sorted(lost))

    def _reap(self) -> None:
        """Mark workers dead whose lease ran out: twice a lease at most, after a whole lease of punctual heartbeats."""
        lease_seconds = self._worker.settings.lease_seconds
        if self._clock() < self._reap_at:
            return
        self._reap_at = self._clock() + lease_seconds / 2
        is_on_time = self._clock_guard.seconds_on_time() >= lease_seconds
        reap = partial(reaper.reap, me_on_time=is_on_time, lease_seconds=lease_seconds)
        if dead := transact(self._worker.sessions, reap):
            log.warning("silent workers declared dead", worker=self._worker.id, dead=dead)
