"""A card that paints plain pictures in milliseconds, for tests whose subject is not rendering.

The prompt directs it:  "wait for PATH" renders until the file is there;  "fail: TEXT" raises RenderError(TEXT);
"break: TEXT" raises an error that nobody expects;  "black" gives no picture;  "hang unless PATH" never ends a decode
while the file is not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from types import MappingProxyType

import numpy as np

from shared.db.sessions import Sessions
from shared.errors import Cancelled, RenderError, Spoilt
from shared.models.memory import Precision
from shared.queue.claim import Claim
from shared.queue.workers import ResidentModel
from shared.settings import Settings
from worker.encode import Pixels
from worker.in_flight import Cancellation
from worker.progress.reporter import ImageProgress
from worker.render.model_cache import Model, ModelCache
from worker.renderer import Frame, Rendered
from worker.supervisor.gpus import Address
from worker.supervisor.watchdog import Watchdog

STEP_SECONDS = 0.002
CALL_SECONDS = 60  # that a step may take before it hangs


class StubCard:
    """Paints each picture in one colour, that of its seed."""

    slots = 8
    load_seconds: float | None = 0.001
    memory_bytes: int | None = None
    host_bytes = 0
    precision: Precision = "half"
    broken_calls: Mapping[str, int] = MappingProxyType({})
    is_lost = False
    keeps_checkpoints = False

    def __init__(
        self,
        address: Address | None = None,
        settings: Settings | None = None,
        sessions: Sessions | None = None,
        on_change: Callable[[], object] | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._watchdog = watchdog or Watchdog()
        self._residency: ModelCache[str] = ModelCache(
            lambda model, _: model.sha256, lambda models: len(models) <= 2, on_change
        )

    def resident(self) -> list[str]:
        return self._residency.resident()

    def models(self) -> list[ResidentModel]:
        return [ResidentModel(model.kind, model.sha256, 2**20) for model in self._residency.models()]

    def phase(self) -> str:
        return "painting"

    def prefetch(self, checkpoint: str) -> None: ...

    def stop(self) -> None: ...

    def render(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> Rendered:
        closed = Event()
        cancel.then(closed.set)
        order, _, detail = claim.params.prompt.partition(" ")
        with self._residency.use({Model("checkpoint", claim.checkpoint)}, cancel), self._busy(claim) as beat:
            _obey(order, detail)
            for step in range(1, claim.params.steps + 1):
                if closed.wait(STEP_SECONDS):
                    raise Cancelled("the image was cancelled")
                beat()
                progress.step(step, claim.params.steps)
                progress.preview(lambda: paint(8, 8, claim.params.seed))
            while order == "hang" and not Path(detail.removeprefix("unless ")).exists():
                time.sleep(STEP_SECONDS)
            while order == "wait" and not Path(detail.removeprefix("for ")).exists():
                beat()
                if closed.wait(STEP_SECONDS):
                    raise Cancelled("the image was cancelled")
        sides = claim.params.upscale.size(8, 8) if claim.params.upscale else (claim.params.width, claim.params.height)
        pixels = paint(sides[1], sides[0], claim.params.seed)
        steps = range(1, claim.params.steps) if claim.params.film else ()
        frames = tuple(Frame(step, claim.params.steps, paint(8, 8, 50 * step)) for step in steps)
        return Rendered(pixels, frames, claim.params.steps)

    @contextmanager
    def _busy(self, claim: Claim) -> Iterator[Callable[[], None]]:
        """Give what the engine's thread does before each call: it says that it lives."""
        what = f"image {claim.image_id}"
        try:
            yield partial(self._watchdog.busy, what, "decode", CALL_SECONDS)
        finally:
            self._watchdog.idle(what)


def _obey(order: str, detail: str) -> None:
    if order == "fail:":
        raise RenderError(detail)
    if order == "black":
        raise Spoilt("the picture came out black")
    if order == "break:":
        raise ZeroDivisionError(detail)


def paint(height: int, width: int, seed: int) -> Pixels:
    return np.full((height, width, 3), seed % 256, dtype=np.uint8)
