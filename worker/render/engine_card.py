"""The card of a worker: it renders the picture of a claim with an engine. Importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import torch

from shared.db.farm import farm_id
from shared.db.sessions import Sessions
from shared.errors import Cancelled, RenderError
from shared.media.making import Making
from shared.media.ownership import guarded
from shared.models.memory import Footprint, Precision
from shared.queue.claim import Claim
from shared.queue.workers import ResidentModel
from shared.settings import Settings
from worker.encode import Pixels
from worker.engine import cuda_errors, devices, proof
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import load
from worker.engine.loading.host_cache import HostCache
from worker.engine.loop import limits
from worker.engine.loop.engine import Engine, Phase
from worker.engine.loop.runs import Step
from worker.engine.pipelines.film import Reel, developed
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.making import Witness, made
from worker.engine.pipelines.render import render
from worker.engine.pipelines.upscale import upscaled
from worker.engine.requests import Asks
from worker.engine.row_limits import RowLimits
from worker.engine.transfers import beside
from worker.in_flight import Cancellation
from worker.progress.reporter import ImageProgress
from worker.render import host_memory, sources
from worker.render.loads import Loads
from worker.render.local_models import LocalModels
from worker.render.memory_meter import MemoryMeter
from worker.render.model_cache import Model, ModelCache
from worker.render.needs import Needs
from worker.render.preview_decoders import PreviewDecoders
from worker.render.residency import Residency
from worker.render.stored_row_limits import processor, stored
from worker.renderer import Frame, Rendered
from worker.supervisor.gpus import Address
from worker.supervisor.watchdog import Watchdog

if TYPE_CHECKING:
    from worker.render.file_loads import Loaded

log = structlog.get_logger(__name__)
T = TypeVar("T")

_DRIVER_BYTES: Final = 512 * 2**20  # of a card's memory that its driver and libraries take


class EngineCard:
    """An engine with the models that are resident on its card."""

    def __init__(
        self,
        address: Address,
        settings: Settings,
        sessions: Sessions,
        on_change: Callable[[], object],
        watchdog: Watchdog | None = None,
    ) -> None:
        self._device = _device(address, settings)
        self._dtype = devices.default_dtype(self._device, settings.precision)
        self._watchdog = watchdog or Watchdog()
        self._prove()
        self._preview_steps = 0 if settings.preview == "off" else settings.preview_steps
        self._files = LocalModels(sessions, settings.models)
        self._storage = guarded(settings.storage, sessions, farm_id(sessions))
        self._engine_phase = ""
        self._on_change = on_change
        self._meter = MemoryMeter(
            self._device, sessions, self.precision, self.memory_bytes, resident_bytes=self._coming_bytes
        )
        self._residency = Residency(self._budget(settings), settings.resident_checkpoints)
        # On a CPU resident weights lie in the host's memory already.
        kept_bytes = host_memory.cache_bytes(settings) if self._device.kind == "cuda" else 0
        self._loads = Loads(
            self._device,
            self._dtype,
            self._files,
            self._meter,
            self._residency,
            self._watchdog,
            HostCache(kept_bytes, self._device),
            on_change,
            self._drop_unused,
        )
        self._model_cache: ModelCache[Loaded] = ModelCache(
            self._load, self._residency.fits, self._residents_changed, self._loads.shared_with
        )
        self._preview_decoders = PreviewDecoders(
            self._files if settings.preview == "auto" else None, self._loads.ask_decoder, settings.rescan_seconds
        )
        self._engine = Engine(self._device, on_phase=self._set_phase, on_full=self._drop_unused)
        self._engine.start()
        Thread(target=_prepare, name="prepare", daemon=True).start()  # beside the first scan of the models folder

    def _prove(self) -> None:
        """Have the card show that it can be used before it takes a picture. Raises CardError."""
        self._watchdog.busy("proof", "the proof of its card", limits.PROOF_SECONDS)
        try:
            proof.prove(self._device, self._dtype)
        finally:
            self._watchdog.idle("proof")

    @property
    def slots(self) -> int:
        return self._device.slots

    @property
    def load_seconds(self) -> float | None:
        return self._loads.load_seconds

    @property
    def memory_bytes(self) -> int | None:
        return max(0, self._device.memory_bytes - _DRIVER_BYTES) if self._device.memory_bytes else None

    @property
    def host_bytes(self) -> int:
        return self._resident_bytes() if self._device.kind == "cpu" else self._loads.cache.bytes

    @property
    def precision(self) -> Precision:
        return "single" if self._dtype == torch.float32 else "half"

    @property
    def broken_calls(self) -> Mapping[str, int]:
        return self._engine.broken_calls

    @property
    def is_lost(self) -> bool:
        return not self._engine.is_running

    def resident(self) -> list[str]:
        return self._model_cache.resident()

    def models(self) -> list[ResidentModel]:
        return [
            ResidentModel(model.kind, model.checkpoint or model.sha256, self._residency.bytes_of([model]))
            for model in self._model_cache.models()
        ]

    def phase(self) -> str:
        return self._loads.phase() or self._engine_phase

    @property
    def keeps_checkpoints(self) -> bool:
        return self._loads.keeps_some

    def prefetch(self, checkpoint: str) -> None:
        self._loads.prefetch(checkpoint)

    def stop(self) -> None:
        self._engine.stop()
        self._loads.stop()

    def render(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> Rendered:
        """Return the picture of `claim`; model files that are not resident are loaded first."""
        try:
            return self._rendered(claim, progress, cancel)
        except Exception as error:
            if not cuda_errors.is_fatal(error):
                raise
            self._engine.lose(error)
            words = str(error)
        raise RenderError(f"the card was lost: {words}")

    def _rendered(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> Rendered:
        models = claim.models or self._files.named_by(claim.job_id, claim.params, claim.checkpoint)
        needs = Needs.of(models, claim.params)
        needed = needs.models

        def report(model: Model) -> None:
            progress.phase(self._loads.phase_of(model))

        pictures = sources.pictures(self._storage, claim.params)
        reel = Reel() if claim.params.film else None
        witness = Witness() if claim.params.intermediates else None
        footprint = Footprint(models.lane, models.companions, claim.memory_class)
        use = self._model_cache.use(needed, cancel, report)
        with self._weighed(needed, report), self._meter.in_flight(footprint), use as loaded:
            options, kit = claim.params.upscale, None
            if options:
                pipeline = upscaled(options, needs.upscale_kit(loaded, pictures, self._device))
            else:
                kit = needs.kit(loaded, pictures)
                pipeline = render(claim.params, kit)
            progress.phase("steps" if kit else "upscale")
            with self._meter.image(footprint, self._residency.bytes_of(needed)):
                run = self._engine.render(
                    pipeline,
                    exact=claim.params.exact,
                    urgent=claim.is_urgent,
                    on_step=partial(self._on_step, progress, kit, [one.take for one in (reel, witness) if one])
                    if kit
                    else None,
                    about=_about(claim),
                )
                cancel.then(run.cancel)
                picture: Pixels = run.result()
            self._loads.weigh_again(loaded)
            frames = self._film(claim, kit, reel, progress, cancel) if kit else ()
            making = self._making(claim, kit, witness, progress, cancel) if kit and witness else None
            return Rendered(picture, frames, reel.steps if reel else 0, making)

    @contextmanager
    def _weighed(self, needed: Collection[Model], report: Callable[[Model], object]) -> Iterator[None]:
        """Weigh the models of an image that are not resident, and remember their weights until it ends."""
        try:
            with self._residency.remembered(needed):
                if missing := self._model_cache.missing(needed):
                    report(missing[0])
                for model in missing:
                    self._loads.weigh(model)  # raises if a file is not here, so that nothing leaves for it
                yield
        finally:
            self._forget_merged()

    def _film(
        self, claim: Claim, kit: Kit, reel: Reel | None, progress: ImageProgress, cancel: Cancellation
    ) -> tuple[Frame, ...]:
        """Return the steps on `reel` as pictures; none if that fails: the picture must not fail with them."""
        if reel is None:
            return ()
        progress.phase("film")
        shots = reel.shots()
        pictures = self._beside(claim, developed(kit, claim.params.tiling, shots), "film", cancel) or ()
        return tuple(Frame(shot.step, shot.steps, pixels) for shot, pixels in zip(shots, pictures, strict=False))

    def _making(
        self, claim: Claim, kit: Kit, witness: Witness, progress: ImageProgress, cancel: Cancellation
    ) -> Making | None:
        """Return how the picture was made, by what `witness` saw; None if that fails."""
        progress.phase("intermediates")
        return self._beside(claim, made(claim.params, kit, witness), "intermediates", cancel)

    def _beside(self, claim: Claim, pipeline: Asks[T], what: str, cancel: Cancellation) -> T | None:
        """Return what is rendered beside a finished picture; None if that fails: the picture must not fail with it."""
        run = self._engine.render(pipeline, exact=claim.params.exact, urgent=claim.is_urgent, about=_about(claim))
        cancel.then(run.cancel)
        try:
            with self._meter.other():
                rendered: T = run.result()
        except Cancelled:
            raise
        except RenderError as error:
            log.warning("extra not rendered", what=what, job=claim.job_id, image=claim.image_id, reason=str(error))
            return None
        return rendered

    def _set_phase(self, phase: Phase, limit_seconds: float) -> None:
        self._engine_phase = phase
        if phase == "idle":
            self._watchdog.idle("engine")
        else:
            self._watchdog.busy("engine", phase, limit_seconds)

    def _on_step(
        self, progress: ImageProgress, kit: Kit, takers: Collection[Callable[[Step], None]], step: Step
    ) -> None:
        for take in takers:
            take(step)
        progress.step(step.index, step.steps)
        if self._preview_steps and step.index % self._preview_steps == 0 and step.index < step.steps:
            weights = kit.of_pass(is_second=step.is_second_pass)
            make = partial(self._preview_decoders.picture, step.denoised, weights)
            progress.preview(beside(self._device, make, "previews"))

    def _load(self, model: Model, cancel: Cancellation) -> Loaded:
        loaded = self._loads.load(model, cancel)
        if isinstance(loaded, Weights):
            self._engine.warm_up(loaded, self._meter.other)
        return loaded

    def _drop_unused(self, enough_bytes: float = math.inf) -> bool:
        """Let models that no image uses leave the card, the longest unused first."""
        return self._model_cache.drop_unused(self._residency.bytes_of, enough_bytes)

    def _residents_changed(self) -> None:
        self._forget_merged()
        self._meter.residents_changed()
        self._on_change()

    def _forget_merged(self) -> None:
        self._residency.forget_merged(partial(self._model_cache.models, with_loading=True))

    def _resident_bytes(self) -> int:
        return self._residency.bytes_of(self._model_cache.models())

    def _coming_bytes(self) -> int:
        """Return what the resident models take, with those that are being loaded."""
        return self._residency.bytes_of(self._model_cache.models(with_loading=True))

    def _budget(self, settings: Settings) -> Callable[[], float]:
        """Return the function that says how much memory models may take: a bound, or what a card offers now."""
        if settings.resident_bytes is not None or self._device.kind == "cpu":
            bound = host_memory.resident_bytes(settings)
            return lambda: bound
        return lambda: (
            min(self.memory_bytes or 0, devices.offered_bytes(self._device) or 0) - self._meter.working_bytes()
        )


def _device(address: Address, settings: Settings) -> Device:
    """Return the device at `address`; a CPU has the limits that workers like this one measured on it before."""
    device = devices.device("cuda:0" if address.uuid else address.name)  # pinned: a card sees itself as 0
    if device.kind != "cpu":
        return device
    return replace(device, row_limits=RowLimits(*stored(settings.home, processor())))


def _prepare() -> None:
    """Import the libraries that loads need before the first one begins; an error is reported by that load."""
    try:
        load.prepare()
    except Exception as error:  # noqa: BLE001 - the edge of a thread
        log.warning("libraries not imported", reason=f"{type(error).__name__}: {error}")


def _about(claim: Claim) -> dict[str, object]:
    """Return what logs say about its runs."""
    return {"job": claim.job_id, "image": claim.image_id}
