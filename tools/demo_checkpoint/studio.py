"""A checkpoint on this machine, rendering pictures through the farm's engine, eight in flight."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from shared.params.render import RenderParams
from worker.engine.architectures.conditioning import Adapter
from worker.engine.architectures.embeddings import Embedding
from worker.engine.devices import device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.pipelines import render
from worker.engine.pipelines.inputs import ControlInput, Kit
from worker.engine.upscaling.architectures import PixelNetwork
from worker.engine.upscaling.enlarging import applied

IN_FLIGHT, SIDE = 8, 128


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a picture needs beside its parameters and the checkpoint."""

    source: NDArray[np.uint8] | None = None  # [h, w, 3]
    mask: NDArray[np.uint8] | None = None  # [h, w], of the part to repaint
    adapters: Mapping[str, Adapter] = field(default_factory=dict)  # that its prompt names, by their keys
    controls: tuple[ControlInput, ...] = ()
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)  # that its prompts may mention, by their words


NOTHING = Inputs()


class Studio:
    """Renders while it is entered. `on_picture` is called for every picture, on any thread."""

    def __init__(self, checkpoint: Path, on_picture: Callable[[], object] = lambda: None, card: str = "cpu") -> None:
        self.weights = load.load(checkpoint, device(card), torch.float32)
        self._engine = Engine(self.weights.device)
        self._on_picture = on_picture

    def __enter__(self) -> Self:
        self._engine.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.stop()

    def render(self, asked: Sequence[RenderParams], inputs: Sequence[Inputs] = ()) -> NDArray[np.uint8]:
        """The pictures of resolved parameters, [count, h, w, 3]; `inputs`: one for each, or none."""
        with ThreadPoolExecutor(IN_FLIGHT) as slots:
            return np.stack(list(slots.map(self._picture, asked, inputs or [NOTHING] * len(asked))))

    def enlarge(self, picture: NDArray[np.uint8], upscaler: PixelNetwork) -> NDArray[np.uint8]:
        """A picture [h, w, 3] at the upscaler's size, made in tiles as the farm makes it."""
        enlarged: NDArray[np.uint8] = self._engine.render(applied(upscaler, picture, self.weights.device)).result()
        return enlarged

    def _picture(self, params: RenderParams, inputs: Inputs) -> NDArray[np.uint8]:
        weights = self.weights.taught(inputs.embeddings)
        kit = Kit(weights, source=inputs.source, mask=inputs.mask, adapters=inputs.adapters, controls=inputs.controls)
        picture: NDArray[np.uint8] = self._engine.render(render.render(params, kit)).result()
        self._on_picture()
        return picture


def painted(prompt: str, seed: int, **others: object) -> RenderParams:
    """The parameters of a demo picture: Euler a, 20 steps, guidance 7, 128x128, except for `others`."""
    return RenderParams.model_validate(
        {"prompt": prompt, "seed": seed, "width": SIDE, "height": SIDE, "checkpoint": "demo", **others}
    )
