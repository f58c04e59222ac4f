"""Several plans at a time: each lane has a ground of its own, where one plan follows the other."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.chaos.ground import Ground, ground
from tests.chaos.plans import make
from tests.chaos.run import Report, run

LANES = 2  # a plan waits for leases and restarts most of its time


class _Lanes:
    def __init__(self, seeds: Iterable[int]) -> None:
        self.reports: dict[int, Future[Report]] = {seed: Future() for seed in seeds}
        self._todo: SimpleQueue[int] = SimpleQueue()
        for seed in self.reports:
            self._todo.put(seed)

    def run(self, folder: Path) -> None:
        """Run plans until none is left."""
        try:
            with ground(folder) as here:
                while self._run_next(here):
                    pass
        except Exception as error:  # noqa: BLE001 - without a ground there is nothing to wait for
            for report in self.reports.values():
                if not report.done():
                    report.set_exception(error)

    def _run_next(self, here: Ground) -> bool:
        try:
            seed = self._todo.get_nowait()
        except Empty:
            return False
        plan = make(seed)
        try:
            report = run(plan, here)
        except Exception:  # noqa: BLE001 - the night goes on
            report = Report(plan, [f"the harness failed: {traceback.format_exc()}"])
        self.reports[seed].set_result(report)
        return True

    def stop(self) -> None:
        """Begin no further plan."""
        while True:
            try:
                self.reports[self._todo.get_nowait()].cancel()
            except Empty:
                return


@contextmanager
def running(seeds: Iterable[int], folder: Path, lanes: int = LANES) -> Iterator[Mapping[int, Future[Report]]]:
    """Yield the report of each plan, to come; at the end of the block no further plan is begun."""
    made = _Lanes(seeds)
    threads = [threading.Thread(target=made.run, args=(folder / f"lane-{number}",)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        yield made.reports
    finally:
        made.stop()
        for thread in threads:
            thread.join()
