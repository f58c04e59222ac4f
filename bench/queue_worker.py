"""`python -m bench.queue_worker --card cpu:0`: the farm's worker as it is, with a card that renders nothing.

It wraps the seams of one lifecycle in clocks from outside, and leaves what it measured in BENCH_TIMINGS when it ends;
BENCH_STARTS is a file that gets a line (job, seconds since the epoch) whenever the card is asked for an image; with
BENCH_PUT=0 nothing is encoded or stored.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import numpy as np

from shared.media.storage import Storage
from shared.queue.claim import Claim
from shared.queue.snapshot import Snapshots
from tests.support.stub_card import StubCard
from worker.__main__ import end, main
from worker.dispatch import claimer, slots
from worker.dispatch.coalesce import Coalescer
from worker.dispatch.storage_writer import StorageWriter
from worker.in_flight import Cancellation
from worker.process import run_worker
from worker.progress.reporter import ImageProgress, Reporter
from worker.render.model_cache import Model
from worker.render.outputs import Output
from worker.renderer import Rendered
from worker.supervisor.launch import Launch

SIDE: Final = 8  # pixels
SWITCH_SECONDS: Final = 0.0005  # as the engine has it, which would bring torch along
WAITING: Final = "wait for other slots"  # whose claims or finishes are in the statement before its own


class EmptyCard(StubCard):
    """Renders nothing, at once."""

    def __init__(self, *given: Any) -> None:  # noqa: ANN401 - as every card
        super().__init__(*given)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._pixels = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        starts = os.environ.get("BENCH_STARTS")
        self._starts = Path(starts).open("a", buffering=1) if starts else None  # noqa: SIM115 - as long as the card

    def render(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> Rendered:
        """Return a picture as small as can be."""
        del progress
        with self._residency.use({Model("checkpoint", claim.checkpoint)}, cancel):
            if self._starts:
                self._starts.write(f"{claim.job_id} {time.time()}\n")
        return Rendered(self._pixels)


class Clocks:
    """Wall and processor seconds by seam, without what is spent in the seams inside of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[str, list[float]] = {}  # seam -> times, wall seconds, processor seconds
        self._mine = threading.local()
        self._first: tuple[float, float] | None = None
        self._last = (0.0, 0.0)

    def timed(self, seam: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return `work` with a clock around it."""

        @wraps(work)
        def clocked(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as `work`
            inside, self._mine.inside = getattr(self._mine, "inside", (0.0, 0.0)), (0.0, 0.0)
            wall, processor = time.perf_counter(), time.thread_time()
            try:
                return work(*args, **options)
            finally:
                spent = time.perf_counter() - wall, time.thread_time() - processor
                within = self._mine.inside
                self._mine.inside = inside[0] + spent[0], inside[1] + spent[1]
                self._add(seam, spent[0] - within[0], spent[1] - within[1])

        return clocked

    def slot(self, run: Callable[..., None]) -> Callable[..., None]:
        """Return what a slot does with an image, with a clock around it."""
        clocked = self.timed("rest of the slot", run)

        @wraps(run)
        def clocked_run(*args: Any, **options: Any) -> None:  # noqa: ANN401 - as `run`
            self._note_time()
            clocked(*args, **options)

        return clocked_run

    def write(self, path: Path) -> None:
        """Leave what was measured, with what the whole process took between the first ticket and the last."""
        first = self._first or self._last
        spent = {"spent": self._spent, "process": self._last[1] - first[1]}
        path.write_text(json.dumps(spent))

    def _note_time(self) -> None:
        self._last = time.perf_counter(), time.process_time()
        self._first = self._first or self._last

    def _add(self, seam: str, wall: float, processor: float) -> None:
        with self._lock:
            known = self._spent.setdefault(seam, [0, 0.0, 0.0])
            known[0] += 1
            known[1] += wall
            known[2] += processor


def wrap(clocks: Clocks) -> None:
    """Put clocks around the seams of a lifecycle."""
    seams: list[tuple[Any, str, str]] = [
        (Coalescer, "__call__", WAITING),
        (claimer.Claimer, "_for_slots", "snapshot, rank"),
        (claimer.Claimer, "_tickets", "tickets"),
        (Snapshots, "add_claim", "note the claim"),
        (claimer, "transact", "claim"),
        (Reporter, "image_changed", "events"),
        (Reporter, "job_changed", "events"),
        (EmptyCard, "render", "render"),
        (slots, "outputs", "encode"),
        (Storage, "put", "put"),
        (slots, "transact", "finish"),
    ]
    for home, name, seam in seams:
        setattr(home, name, clocks.timed(seam, getattr(home, name)))
    slots.Slots.run = clocks.slot(slots.Slots.run)  # type: ignore[method-assign]


def measured(launch: Launch) -> int:
    """Be one worker with clocks; return the exit status."""
    clocks, timings = Clocks(), os.environ.get("BENCH_TIMINGS")
    if os.environ.get("BENCH_PUT") == "0":
        # Neither encoded nor put, so that the rest is seen alone.
        slots.outputs = lambda *_: [Output("picture", "", b"")]
        StorageWriter.put = lambda *_: None  # type: ignore[method-assign]
    if timings:
        wrap(clocks)
    status = run_worker(launch, EmptyCard)
    if timings:
        clocks.write(Path(f"{timings}.{launch.card.name}"))
    return status


if __name__ == "__main__":
    end(main(module="bench.queue_worker", run_worker=measured))
