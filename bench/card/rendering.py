"""Pictures by the engine, as parts of a run ask for them: some of them, or a flight that goes on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from threading import Event, Thread
from typing import Any, Final, Self

from shared.errors import Cancelled
from shared.media.arrays import Pixels
from shared.params.render import RenderParams
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Run, Step
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render

PROMPT: Final = "a painting of the desert at sunset, pyramids, sun"
SECONDS: Final = 120.0  # that a picture may take: more than any part has
Wanted = Callable[[int], RenderParams]
"""The number of a picture -> what it is."""


def params(side: int, steps: int, seed: int, **more: Any) -> RenderParams:  # noqa: ANN401 - fields of parameters
    """Return a picture of the plainest kind: Euler a, CFG 7."""
    fields = {"prompt": PROMPT, "checkpoint": "bench", "width": side, "height": side, "steps": steps, "seed": seed}
    return RenderParams.model_validate(fields | {"cfg_scale": 7.0} | more)


def uniform(side: int, steps: int) -> Wanted:
    """Return what pictures are that differ by their seeds alone."""
    return lambda number: params(side, steps, number)


class Turns:
    """When an engine called its U-Net, and the time of its own thread that lay between: to be its `on_phase`."""

    def __init__(self) -> None:
        self.at: list[float] = []  # seconds of the clock
        self._thread: list[float] = []  # seconds of the engine's thread

    def __call__(self, phase: str, _: float) -> None:
        if phase == "steps":
            self.at.append(time.perf_counter())
            self._thread.append(time.thread_time())

    def clear(self) -> None:
        """Forget the turns so far but the last, from which the next is timed, however long it is held up."""
        del self.at[:-1]
        del self._thread[:-1]

    @property
    def seconds(self) -> list[float]:
        """The time from each turn to the next."""
        return [later - one for one, later in itertools.pairwise(self.at)]

    @property
    def host_seconds(self) -> float:
        """The time of the engine's thread that a turn took, the median."""
        found = [later - one for one, later in itertools.pairwise(self._thread)]
        return median(found) if found else 0.0


@contextmanager
def serving(card: Device, turns: Turns | None = None, **options: Any) -> Iterator[Engine]:  # noqa: ANN401 - an engine's
    """Yield an engine that serves, until the block ends."""
    engine = Engine(card, on_phase=turns, **options)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def begin(engine: Engine, weights: Weights, wanted: RenderParams, **options: Any) -> Run:  # noqa: ANN401 - a run's
    """Begin a picture."""
    return engine.render(render(wanted, Kit(weights)), exact=wanted.exact, **options)


def pictures(engine: Engine, weights: Weights, wanted: Sequence[RenderParams], in_flight: int) -> list[Pixels]:
    """Return pictures, so many of them in flight at a time."""

    def picture(one: RenderParams) -> Pixels:
        pixels: Pixels = begin(engine, weights, one).result(SECONDS)
        return pixels

    with ThreadPoolExecutor(in_flight) as slots:
        return list(slots.map(picture, wanted))


class Flight:
    """So many pictures in flight at all times, within a block. A failure is raised when the block ends."""

    def __init__(  # noqa: PLR0913 - the last two are seldom given
        self,
        engine: Engine,
        weights: Sequence[Weights],
        wanted: Wanted,
        in_flight: int,
        *,
        finish: Callable[[Pixels], object] = lambda _: None,
        on_step: Callable[[Step], object] = lambda _: None,
    ) -> None:
        """Pictures take the `weights` in turn; `finish` is given each one in its slot."""
        self.steps = 0
        self._engine, self._weights, self._wanted = engine, weights, wanted
        self._finish, self._on_step = finish, on_step
        self._numbers = itertools.count()
        self._has_ended = Event()
        self._runs: set[Run] = set()
        self._errors: list[Exception] = []
        self._slots = [Thread(target=self._slot, name=f"slot {n}", daemon=True) for n in range(in_flight)]

    def __enter__(self) -> Self:
        for slot in self._slots:
            slot.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        for run in tuple(self._runs):
            run.cancel()
        for slot in self._slots:
            slot.join()
        if self._errors:
            raise self._errors[0]

    def measured(self, seconds: float) -> float:
        """Wait for `seconds`, and for a step of each picture; return the steps a second meanwhile."""
        steps, begun = self.steps, time.perf_counter()
        self._has_ended.wait(seconds)
        self.until(len(self._slots) - (self.steps - steps))
        return (self.steps - steps) / (time.perf_counter() - begun)

    def until(self, steps: int) -> None:
        """Wait for so many steps more, or for an error."""
        wanted = self.steps + steps
        while self.steps < wanted and not self._errors:
            time.sleep(0.001)

    def _slot(self) -> None:
        try:
            while not self._has_ended.is_set():
                self._picture(next(self._numbers))
        except Cancelled:
            pass
        except Exception as error:  # noqa: BLE001 - the edge of a thread; raised by the block
            self._errors.append(error)
            self._has_ended.set()

    def _picture(self, number: int) -> None:
        run = begin(self._engine, self._weights[number % len(self._weights)], self._wanted(number), on_step=self._step)
        self._runs.add(run)
        if self._has_ended.is_set():
            run.cancel()
        try:
            self._finish(run.result(SECONDS))
        finally:
            self._runs.discard(run)

    def _step(self, step: Step) -> None:
        self.steps += 1
        self._on_step(step)
