"""A worker with the stub card in a thread of the test: what a farm is asked for is rendered within milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from shared.db.sessions import Sessions, transact
from shared.models import first_scan
from shared.settings import Settings
from tests.support.workers import made
from worker.context import Worker
from worker.dispatch.claimer import Claimer
from worker.dispatch.slots import Slots
from worker.progress.reporter import Reporter


@contextmanager
def painting(settings: Settings, sessions: Sessions) -> Iterator[Worker]:
    """Render whatever is queued, one image after the other, until the end of the block."""
    with made(settings.model_copy(update={"lease_seconds": 3600}), sessions) as worker:
        transact(sessions, first_scan.record_scan)
        slots = Slots(worker, Claimer(worker), Reporter(worker.events), on_free=lambda: None, on_lost=lambda: None)
        stopped = Event()

        def work() -> None:
            while not stopped.wait(0.01):
                slots.consume(was_passed=False)

        thread = Thread(target=work)
        thread.start()
        yield worker
        stopped.set()
        thread.join(20)
