"""Several plans at a time: each lane is a process with a ground of its own, where one plan follows the other.

A process, since the ways to the servers carry every byte through it: lanes would slow each other down, and pytest.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.chaos.ground import ground
from tests.chaos.plans import OUTAGE_SECONDS, make
from tests.chaos.run import Report, run

LANES = 3  # for two cores: a plan waits for leases and restarts most of its time
_ENOUGH = None  # sent in place of a seed


def _serve(folder: Path, orders: Connection, outage_seconds: float) -> None:
    """Be a lane: run the plan of each seed that comes, and send its report back."""
    with ground(folder) as here:
        while (seed := orders.recv()) is not _ENOUGH:
            plan = make(seed, outage_seconds)
            try:
                report = run(plan, here)
            except Exception:  # noqa: BLE001 - the night goes on
                report = Report(plan, [f"the harness failed: {traceback.format_exc()}"])
            orders.send(report)


class _Lanes:
    def __init__(self, seeds: Iterable[int]) -> None:
        self.reports: dict[int, Future[Report]] = {seed: Future() for seed in seeds}
        self._todo: SimpleQueue[int] = SimpleQueue()
        for seed in self.reports:
            self._todo.put(seed)

    def run(self, folder: Path, outage_seconds: float) -> None:
        """Have a lane run plans until none is left."""
        context = get_context("spawn")
        orders, theirs = context.Pipe()
        lane = context.Process(target=_serve, args=(folder, theirs, outage_seconds))
        lane.start()
        theirs.close()
        with orders:
            while self._run_next(orders):
                pass
        lane.join()
        status = lane.exitcode
        lane.close()
        if status:
            self.stop()

    def _run_next(self, orders: Connection) -> bool:
        try:
            seed = self._todo.get_nowait()
        except Empty:
            seed = _ENOUGH
        try:
            orders.send(seed)
            if seed is _ENOUGH:
                return False
            self.reports[seed].set_result(orders.recv())
        except (OSError, EOFError) as error:  # the lane has died: others may go on
            if seed is not _ENOUGH:
                self.reports[seed].set_exception(error)
            return False
        return True

    def stop(self) -> None:
        """Begin no further plan."""
        while True:
            try:
                self.reports[self._todo.get_nowait()].cancel()
            except Empty:
                return


@contextmanager
def running(
    seeds: Iterable[int], folder: Path, lanes: int = LANES, outage_seconds: float = OUTAGE_SECONDS
) -> Iterator[Mapping[int, Future[Report]]]:
    """Yield the report of each plan, to come; at the end of the block no further plan is begun."""
    made = _Lanes(seeds)
    folders = [folder / f"lane-{number}" for number in range(lanes)]
    threads = [threading.Thread(target=made.run, args=(lane, outage_seconds)) for lane in folders]
    for thread in threads:
        thread.start()
    try:
        yield made.reports
    finally:
        made.stop()
        for thread in threads:
            thread.join()
