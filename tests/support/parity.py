"""The engine's final latents beside those of diffusers' pipelines, by case."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.params.groups import Refiner
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from shared.params.size_conditioning import Crop, OriginalSize, TargetSize
from tests.support import references
from worker.engine.architectures.weights import Weights
from worker.engine.guidance.inpainting import View
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.denoise_pass import drawn, modelled, planned, sampled
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Asks, ToPixels

BOUND: Final = 1e-4  # of the largest difference between two final latents, whose standard deviation is 0.4 to 2
STEPS, SCALE, SEED = 8, 5.0, 7
SECONDS: Final = 120
SWITCH_AT: Final = 0.75  # six of eight steps are the base model's, as diffusers rounds it too
_SHA: Final = "0" * 64

Load = Callable[[str], Weights]  # of a kind of small checkpoint


def by_day(cases: Iterable[str], every_run: Container[str]) -> pytest.MarkDecorator:
    """Return what gives a test the name of each case; those that are not in `every_run` are of the nightly run."""
    marked = (pytest.param(one, marks=() if one in every_run else pytest.mark.nightly) for one in cases)
    return pytest.mark.parametrize("name", [*marked])


@dataclass(frozen=True)
class Case:
    """A render that both sides do."""

    kind: str
    params: Mapping[str, object] = field(default_factory=dict)
    refiner: str | None = None
    masks: bool = False  # an inpainting checkpoint sees a picture outside of a mask
    holds: bool = False  # and starts from that picture, whose latent stays outside of the mask


_SIZES: Final = {
    "original_size": OriginalSize(width=768, height=512),
    "crop": Crop(left=8, top=32),
    "target_size": TargetSize(width=64, height=96),
}
CASES: Final[Mapping[str, Case]] = {
    "SD 1": Case("sd1"),
    "SD 2, noise": Case("sd2", {"negative_prompt": "snow"}),
    "SD 2, velocity": Case("sd2-velocity"),
    "SD 2, inpainting": Case("sd2-inpainting", masks=True),
    "SDXL": Case("sdxl"),
    "SDXL, own sizes and a negative prompt": Case("sdxl", {**_SIZES, "negative_prompt": "snow", "height": 96}),
    "SDXL with the refiner": Case("sdxl", _SIZES, refiner="sdxl-refiner"),
    "SDXL inpainting": Case("sdxl-inpainting", _SIZES, masks=True),
    "SDXL inpainting, the rest held": Case("sdxl-inpainting", masks=True, holds=True),
    "SDXL, velocity from zero signal": Case("sdxl-velocity", _SIZES),
}


def params_of(case: Case) -> RenderParams:
    """Return the parameters of a case."""
    usual = {"prompt": "a red boat on the sea", "checkpoint": case.kind, "width": 64, "height": 64, "seed": SEED}
    found = RenderParams(**usual | references.ALIKE | {"steps": STEPS, "cfg_scale": SCALE} | case.params)
    if case.refiner:
        found = found.model_copy(update={"refiner": Refiner(checkpoint=case.refiner, switch_at=SWITCH_AT)})
    if case.holds:
        how = Mask(picture=_SHA, blur=0.0)
        found = found.model_copy(update={"img2img": Img2Img(picture=_SHA, denoising=1.0, mask=how)})
    return found


def of_diffusers(case: Case, folder: Callable[[str], Path]) -> Tensor:
    """Return the final latent [4, h/8, w/8] by the pipeline of the case's folder."""
    params, sizes = params_of(case), _sizes(case)
    noise = torch.randn((1, 4, params.height // 8, params.width // 8), generator=torch.Generator().manual_seed(SEED))[0]
    if case.refiner:
        return references.refined((folder(case.kind), folder(case.refiner)), params, noise, SWITCH_AT, sizes)
    if case.masks:
        pixels, mask = (torch.from_numpy(one).permute(2, 0, 1) for one in (_pixels(params), _mask(params)))
        scene = pixels / 127.5 - 1, mask / 255
        return references.inpainted(folder(case.kind), params, noise, scene, sizes, holds=case.holds)
    return references.text_to_image(folder(case.kind), params, noise, sizes)


def of_engine(case: Case, engine: Engine, loaded: Load) -> Tensor:
    """Return the final latent [4, h/8, w/8] by the engine."""
    params = params_of(case)
    kit = Kit(_alike(loaded(case.kind)), refiner=loaded(case.refiner) if case.refiner else None)
    if case.masks and not case.holds:
        asks = _seen(params, kit, _pixels(params), _mask(params))
    else:
        pictures = {"source": _pixels(params), "mask": _mask(params)[..., 0]} if case.holds else {}
        asks = undecoded(render(params, replace(kit, **pictures)))
    latent: Tensor = engine.render(asks).result(SECONDS)
    return latent


def _alike(weights: Weights) -> Weights:
    """Return weights whose table, if its last timestep holds no signal, ends as that of diffusers' Euler."""
    *rest, last = weights.sigmas.values
    if last < 1000:
        return weights
    values = (*rest, (1 / references.LAST_SHARE - 1) ** 0.5)
    return replace(weights, sigmas=replace(weights.sigmas, values=values))


def _sizes(case: Case) -> dict[str, tuple[int, int]]:
    """Return the sizes of a case by diffusers' names, heights first; none for pipelines that take none."""
    found = params_of(case)
    if not (found.original_size and found.target_size):
        return {}
    original, target = found.original_size, found.target_size
    return {
        "original_size": (original.height, original.width),
        "crops_coords_top_left": (found.crop.top, found.crop.left),
        "target_size": (target.height, target.width),
    }


def _pixels(params: RenderParams) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(60, 200, (params.height, params.width, 3)).astype(np.uint8)


def _mask(params: RenderParams) -> NDArray[np.uint8]:
    mask = np.zeros((params.height, params.width, 1), np.uint8)
    mask[16:48, 24:64] = 255
    return mask


def undecoded(asks: Asks[Any]) -> Asks[Tensor]:
    """Return the latent that a pipeline would decode."""
    answer = None
    while True:
        request = asks.send(answer)
        if isinstance(request, ToPixels):
            return request.latent
        answer = yield request


def _seen(params: RenderParams, kit: Kit, pixels: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Asks[Tensor]:
    """Return the latent of an inpainting checkpoint that starts from noise alone, as diffusers' pipelines do."""
    picture = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    view = View(picture, torch.from_numpy(mask).permute(2, 0, 1) / 255, 1)
    this_pass = planned(params, kit.weights)
    draws = yield from drawn(this_pass)
    model = yield from modelled(this_pass, view)
    return (yield from sampled(this_pass, model, draws.first * this_pass.sigmas[0], draws))
