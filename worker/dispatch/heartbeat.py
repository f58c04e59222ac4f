"""The beat: renews the lease, compares what SQL says that this worker runs with what it runs, buries the silent."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from shared.db.sessions import transact
from shared.errors import Unavailable
from shared.maintenance.deadlines import run_due
from shared.queue import reaper, transitions, workers
from worker.context import Worker
from worker.supervisor.clock_guard import Punctuality

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 1.0  # while the database is away: the lease may not have ended when it is back


def boot_clock() -> float:
    """Return seconds that go on while the machine sleeps: a laptop that wakes up knows that it was late."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Heartbeat:
    """Sends a heartbeat every `beat_seconds`; `on_dead` ends the process if others have declared it dead."""

    def __init__(self, worker: Worker, on_dead: Callable[[], object], clock: Callable[[], float] = boot_clock) -> None:
        self._worker = worker
        self._on_dead = on_dead
        self._clock = clock
        self._punctuality = Punctuality(worker.settings.beat_seconds, clock)  # of heartbeats that were answered
        self._is_database_away = False
        self._missing: dict[tuple[int, int], float] = {}  # (image, attempt) in SQL but not here -> since when
        self._reap_at = clock() + worker.settings.lease_seconds

    def run_once(self) -> float | None:
        held, drained = self._worker.in_flight.attempts(), self._worker.drained
        try:
            answer = self._send(held)
            if answer is None:
                self._on_dead()
                return None
            self._set_database(is_away=False)
            self._punctuality.note()
            self._set_drained(drained, answer.drained)
            self._worker.in_flight.drop({image: held[image] for image in answer.drop if image in held})
            self._hand_back(answer.missing)
            self._reap()
            run_due(self._worker.sessions, self._worker.tickets, self._worker.events)
        except Unavailable:
            # Running images go on: if the lease ends meanwhile, the fence decides whose picture counts.
            self._set_database(is_away=True)
            return min(_AGAIN_SECONDS, self._worker.settings.beat_seconds)
        return None

    def _send(self, held: dict[int, int]) -> workers.Heartbeat | None:
        worker = self._worker
        return transact(
            worker.sessions,
            lambda session: workers.heartbeat(
                session,
                worker.id,
                running=held,
                state=worker.reported_state,
                phase=worker.phase,
                resident=worker.card.resident(),
                load_seconds=worker.card.load_seconds,
                lease_seconds=worker.settings.lease_seconds,
                slots=worker.slots,
                memory_bytes=worker.card.memory_bytes,
                precision=worker.card.precision,
                unread=worker.unread.jobs(),
                broken_calls=worker.card.broken_calls,
                trouble=worker.reported_trouble,
            ),
        )

    def _set_database(self, *, is_away: bool) -> None:
        if is_away != self._is_database_away:
            log.warning("database away" if is_away else "database back", worker=self._worker.id)
        self._is_database_away = is_away

    def _set_drained(self, before: str | None, drained: str | None) -> None:
        """Do as SQL says, unless this worker, which was `before` so, has drained itself since: the next beat knows."""
        if self._worker.replace_drained(before, drained) and drained != before:
            log.warning("drained" if drained else "resumed", worker=self._worker.id, reason=drained)

    def _hand_back(self, missing: dict[int, int]) -> None:
        """Give back what SQL has had here for a beat's time and nobody carries: before it may be a claim on its way.

        Beats may follow one another at once: their number says nothing.
        """
        now, in_flight = self._clock(), self._worker.in_flight.attempts()
        self._missing = {one: self._missing.get(one, now) for one in missing.items()}
        lost = {
            image: attempt
            for (image, attempt), since in self._missing.items()
            if now - since >= self._worker.settings.beat_seconds and in_flight.get(image) != attempt
        }
        if lost:
            transact(self._worker.sessions, lambda session: transitions.hand_back(session, self._worker.id, lost))
            log.warning("handed back what no slot carries", worker=self._worker.id, images=sorted(lost))

    def _reap(self) -> None:
        """Declare workers past their lease dead, at most twice a lease, if its own came on time for a lease."""
        lease_seconds = self._worker.settings.lease_seconds
        if self._clock() < self._reap_at:
            return
        self._reap_at = self._clock() + lease_seconds / 2
        is_on_time = self._punctuality.seconds() >= lease_seconds
        dead = transact(
            self._worker.sessions,
            lambda session: reaper.reap(session, me_on_time=is_on_time, lease_seconds=lease_seconds),
        )
        if dead:
            log.warning("silent workers declared dead", worker=self._worker.id, dead=dead)
