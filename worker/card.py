"""The one door between the slots and the engine: a claim goes in, a picture comes out. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from shared.database import Sessions
from shared.queue.claim import Claim
from shared.settings import Settings
from worker.cards import Address
from worker.carried import Cancellation
from worker.engine import checkpoints, devices, previews
from worker.engine.engine import Engine
from worker.engine.pipelines import Kit, text_to_image
from worker.engine.runs import Step
from worker.engine.weights import Weights
from worker.model_files import Found, ModelFiles
from worker.pictures import Pixels
from worker.progress import Watch
from worker.residency import Residency

log = structlog.get_logger(__name__)

# What a load is told to take until one was measured: the libraries' import, then a disk as most have it.
_FIRST_LOAD_SECONDS: Final = 5.0
_LOAD_BYTES_A_SECOND: Final = 500e6


class EngineCard:
    """An engine with the checkpoints that are resident on its card."""

    def __init__(
        self, address: Address, settings: Settings, sessions: Sessions, on_change: Callable[[], object]
    ) -> None:
        self._device = devices.device("cuda:0" if address.uuid else address.name)  # pinned: a card sees itself as 0
        self._dtype = devices.default_dtype(self._device, settings.precision)
        self._preview_steps = settings.preview_steps
        self._files = ModelFiles(sessions, settings.models)
        self._residency: Residency[Weights] = Residency(self._load, settings.resident_checkpoints, on_change)
        self._on_change = on_change
        self._loading: dict[str, str] = {}  # SHA-256 -> phase; two may load at a time
        self._engine_phase = ""
        self._engine = Engine(self._device, on_phase=self._note_phase)
        self._engine.start()

    @property
    def slots(self) -> int:
        return self._device.slots

    @property
    def load_seconds(self) -> float | None:
        return self._residency.load_seconds

    @property
    def is_lost(self) -> bool:
        return not self._engine.is_running

    def resident(self) -> list[str]:
        return self._residency.resident()

    def phase(self) -> str:
        return next(iter(tuple(self._loading.values())), self._engine_phase)

    def stop(self) -> None:
        self._engine.stop()

    def render(self, claim: Claim, watch: Watch, cancel: Cancellation) -> Pixels:
        """Return the picture of `claim`, its checkpoint loaded first if it is not resident."""
        if claim.checkpoint not in self.resident():
            watch.phase(self._load_phase(self._files.find(claim.checkpoint)))
        with self._residency.use(claim.checkpoint, cancel) as weights:
            watch.phase("steps")
            run = self._engine.render(
                text_to_image(claim.params, Kit(weights)),
                exact=claim.params.exact,
                on_step=partial(self._on_step, watch, weights),
            )
            cancel.then(run.cancel)
            picture: Pixels = run.result()
            return picture

    def _note_phase(self, phase: str) -> None:
        self._engine_phase = phase

    def _on_step(self, watch: Watch, weights: Weights, step: Step) -> None:
        watch.step(step.index, step.steps)
        if self._preview_steps and step.index % self._preview_steps == 0 and step.index < step.steps:
            watch.preview(partial(previews.preview, step.denoised, weights.latent_rgb))

    def _load(self, sha256: str) -> Weights:
        """Load a checkpoint off the engine's thread: the steps of others go on meanwhile."""
        found = self._files.find(sha256)
        self._loading[sha256] = self._load_phase(found)
        self._on_change()
        try:
            weights = checkpoints.load(found.path, self._device, self._dtype)
        finally:
            del self._loading[sha256]
        log.info("checkpoint loaded", checkpoint=found.name, sha256=sha256, bytes=weights.bytes)
        return weights

    def _load_phase(self, found: Found) -> str:
        seconds = self.load_seconds or _FIRST_LOAD_SECONDS + found.bytes / _LOAD_BYTES_A_SECOND
        return f"loading checkpoint {found.name}, about {math.ceil(seconds)} s"
