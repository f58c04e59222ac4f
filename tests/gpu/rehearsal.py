"""A worker's afternoon on one card: pictures of all kinds in flight, with their films and previews."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch

from bench import company
from bench.company import Job
from shared.errors import RenderError
from shared.media.arrays import Pixels
from tests.support import hypernetwork_files, image_prompted, low_rank
from tests.support.checkpoints import NATIVE_SIZE
from worker.engine.adapters import control_nets, hypernetworks, ip_adapters
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.adapters.hypernetworks import Hypernetwork
from worker.engine.adapters.low_rank import LowRank
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import embeddings, image_encoders
from worker.engine.loading import load as checkpoints
from worker.engine.loading.loader import Loader
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Step
from worker.engine.pipelines.film import Reel, developed
from worker.engine.pipelines.inputs import IPAdapterInput, Kit
from worker.engine.pipelines.render import Picture, render
from worker.engine.transfers import beside
from worker.progress.preview_queue import PreviewQueue
from worker.render.preview_decoders import PreviewDecoders

SECONDS = 300
LONG = "moon, " * 90  # three chunks of 77 tokens

FAILING = "failing"
CANCELLED = "cancelled"

Outcome = Picture | Exception


def jobs(count: int, seed: int = 1) -> list[Job]:
    """Return a mix of tiny jobs of all kinds and samplers; the first ones have prompts of several lengths."""
    mixed = company.mix(count, seed, sides=(NATIVE_SIZE,), most_steps=3)
    words = ({"prompt": LONG}, {"negative_prompt": LONG}, {"prompt": "sea AND moon :0.4", "film": True})
    changes = [*words, *[{}] * count]
    return [
        Job(job.kind, job.params.model_copy(update=change), job.source, job.mask)
        for job, change in zip(mixed, changes, strict=False)
    ]


def keep(previews: list[bytes], _job: int, _index: int, webp: bytes) -> None:
    previews.append(webp)


class Afternoon:
    """An engine on a card with the threads beside it, a checkpoint and a refiner if there is one, within the block."""

    def __init__(self, path: Path, card: Device, dtype: torch.dtype, refiner: Path | None = None) -> None:
        self.engine = Engine(card)
        self.previews: list[bytes] = []
        self._previewer = PreviewDecoders(None, lambda _: Future(), SECONDS)
        self._preview_queue = PreviewQueue(partial(keep, self.previews))
        self._loader = Loader(card)
        self._load = partial(checkpoints.load, path, card, dtype)
        self._load_refiner = partial(checkpoints.load, refiner, card, dtype) if refiner else lambda: None

    def __enter__(self) -> Self:
        self._loader.start()
        self.engine.start()
        self._preview_queue.start()
        self.weights: Weights | None = self._loader.run(self._load)
        self.refiner: Weights | None = self._loader.run(self._load_refiner)
        return self

    def __exit__(self, *_: object) -> None:
        self._preview_queue.stop()
        self.engine.stop()
        self._loader.stop()

    def adapters(self, *ranks: int) -> dict[str, LowRank]:
        """Return an adapter of each of `ranks` for every layer of the checkpoint, by the key of its tag."""
        assert self.weights
        make = (partial(low_rank.drawn, self.weights, seed, rank, layers=None) for seed, rank in enumerate(ranks))
        return {f"lora:{number}": self._loader.run(one) for number, one in enumerate(make)}

    def learn(self, folder: Path) -> dict[str, Hypernetwork]:
        """Teach the word ink to the checkpoint, and return a hypernetwork by the key of its tag; from files."""
        assert self.weights
        width, device, dtype = self.weights.text_encoders[0].width, self.weights.device, self.weights.dtype
        draw = torch.Generator().manual_seed(1)
        torch.save({"ink": torch.randn(3, width, generator=draw)}, folder / "ink.pt")
        ink = self._loader.run(partial(embeddings.load, folder / "ink.pt", "a" * 64, device, dtype))
        self.weights = self.weights.taught({"ink": ink})
        nets = hypernetwork_files.content(hypernetwork_files.drawn(1, [width], activation="relu"), activation="relu")
        torch.save(nets, folder / "haze.pt")
        load = partial(hypernetworks.load, folder / "haze.pt", "b" * 64, "haze", device, dtype)
        return {"hypernet:haze": self._loader.run(load)}

    def control_net(self, path: Path) -> ControlNet:
        """Return the control net in the file at `path`, on the card."""
        assert self.weights
        return self._loader.run(partial(control_nets.load, path, self.engine.device, self.weights.dtype))

    def image_prompt(self, adapter: Path, encoder: Path, picture: Pixels, **how: Any) -> IPAdapterInput:
        """Return the IP-Adapter in the file at `adapter` with its options and a picture, on the card."""
        assert self.weights
        on, dtype = self.engine.device, self.weights.dtype
        loaded = self._loader.run(partial(ip_adapters.load, adapter, on, dtype))
        reader = self._loader.run(partial(image_encoders.load, encoder, on, dtype))
        return IPAdapterInput(image_prompted.unit(picture, **how), loaded, reader, (picture,))

    def together(self, mixed: Sequence[Job], in_flight: int = 8) -> list[Outcome]:
        """Return what came of jobs, so many of them in flight."""
        with ThreadPoolExecutor(in_flight, thread_name_prefix="slot") as slots:
            return list(slots.map(self._outcome, range(len(mixed)), mixed))

    def beside_a_load(self, mixed: Sequence[Job]) -> list[Outcome]:
        """Return what came of jobs while a checkpoint was loaded that nobody wanted any more when it was there."""
        with ThreadPoolExecutor(1, thread_name_prefix="slot") as slot:
            load = slot.submit(self._load_another)
            found = self.together(mixed)
            load.result(SECONDS)
        return found

    def _load_another(self) -> None:
        self._loader.run(self._load)

    def _outcome(self, number: int, job: Job) -> Outcome:
        try:
            return self._rendered(number, job)
        except RenderError as error:  # looked at when all have ended
            return error.with_traceback(None)

    def _rendered(self, number: int, job: Job) -> Picture:
        weights = self.weights
        assert weights
        beside_it = {"adapters": job.adapters, "controls": job.controls, "ip_adapters": job.ip_adapters}
        inputs = {"source": job.source, "mask": job.mask, **beside_it}
        kit, reel = Kit(weights, self.refiner, **inputs), Reel()  # type: ignore[arg-type]  # each as its field
        claim = SimpleNamespace(job_id=number, index=0)

        def on_step(step: Step) -> None:
            if job.kind == FAILING:
                raise RenderError("no more")
            if job.kind == CANCELLED:
                run.cancel()
            if job.params.film:
                reel.take(step)
            make = partial(self._previewer.picture, step.denoised, weights)
            self._preview_queue.put(claim, beside(self.engine.device, make, "previews"))

        run = self.engine.render(render(job.params, kit), exact=job.params.exact, on_step=on_step)
        picture: Picture = run.result(SECONDS)
        if job.params.film:
            self.engine.render(developed(kit, job.params.tiling, reel.shots())).result(SECONDS)
        return picture
