"""Final latents with control nets: the engine's beside those of diffusers' pipelines, by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from diffusers.models.controlnets.multicontrolnet_union import MultiControlNetUnionModel
from torch import Tensor

from shared.media.arrays import Pixels
from shared.params import geometry
from shared.params.controlnet import ControlUnit
from shared.params.img2img import Img2Img
from shared.params.render import RenderParams
from tests.support import parity, references
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.architectures.weights import Weights
from worker.engine.images.preprocessors import hint
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import ControlInput, Kit
from worker.engine.pipelines.render import render

SHA: Final = "0" * 64


@dataclass(frozen=True)
class Case:
    """A render that both sides do; each unit goes with the net of the seed at its place."""

    kind: str
    units: tuple[Mapping[str, Any], ...] = ({},)
    params: Mapping[str, Any] = field(default_factory=dict)
    denoising: float | None = None  # of img2img
    is_union: bool = False
    is_pooled: bool = False


CASES: Final[Mapping[str, Case]] = {
    "SD 1": Case("sd1", ({"weight": 0.8},), {"negative_prompt": "snow"}),
    "SD 1, two nets for parts of the steps": Case("sd1", ({"end": 0.5}, {"start": 0.3, "weight": 1.5})),
    "SD 1, a picture over another one": Case("sd1", ({},), denoising=0.75),
    "SD 1, the same at each place": Case("sd1", ({},), is_pooled=True),
    "SD 2": Case("sd2"),
    "SD 1, no guidance": Case("sd1", params={"cfg_scale": 1.0}),
    "SDXL, two nets": Case("sdxl", ({"preprocessor": "canny"}, {"weight": 0.5}), {"height": 96}),
    "SDXL, a picture over another one": Case("sdxl", denoising=0.5),
    "SDXL, a union": Case("sdxl", ({"shows": "lines"},), is_union=True),
    "SDXL, two pictures for a union": Case(
        "sdxl", ({"shows": "depth", "weight": 0.5}, {"shows": "pose", "end": 0.5}), is_union=True
    ),
}


def without_control(case: Case) -> Case:
    """Return the same case without any net."""
    return replace(case, units=(), is_union=False)


def params_of(case: Case) -> RenderParams:
    """Return the parameters of a case."""
    found = parity.params_of(parity.Case(case.kind, case.params))
    over = None if case.denoising is None else Img2Img(picture=SHA, denoising=case.denoising)
    return found.model_copy(update={"img2img": over})


def units_of(case: Case) -> tuple[ControlUnit, ...]:
    """Return the options of the nets of a case."""
    return tuple(ControlUnit(model="net", picture=SHA, resize="resize", **unit) for unit in case.units)


@torch.inference_mode()
def of_diffusers(case: Case, folder: Path, nets: Sequence[Any]) -> Tensor:
    """Return the final latent [4, h/8, w/8] by diffusers' pipeline with the checkpoint in `folder` and `nets`."""
    params, units = params_of(case), units_of(case)
    each = {
        "control_guidance_start": [unit.start for unit in units],
        "control_guidance_end": [unit.end for unit in units],
        "controlnet_conditioning_scale": [unit.weight for unit in units],
    }
    hints = [hint(picture(params, place), None, unit)[None] for place, unit in enumerate(units)]
    name = "image" if case.denoising is None and not case.is_union else "control_image"
    each[name] = hints
    if case.is_union:
        each["control_mode"] = [unit.type for unit in units]
    found = references.pipeline(folder)
    inputs: dict[str, Any] = each if len(nets) > 1 else {name: one for name, (one,) in each.items()}
    if case.denoising is not None:
        source = torch.from_numpy(picture(params, len(nets)).transpose(2, 0, 1) / np.float32(127.5) - 1)
        run = geometry.img2img_steps(params.steps, case.denoising, exact=False).run
        latent = found.vae.encode(source[None]).latent_dist.mode() * found.vae.config.scaling_factor
        inputs |= {"image": latent, "strength": run / params.steps}
    net = nets[0] if len(nets) == 1 else _many(case)(nets)
    pipeline = _pipeline(case)(**found.components, controlnet=net)
    pipeline.set_progress_bar_config(disable=True)
    answer: Tensor = pipeline(
        prompt=params.prompt, negative_prompt=params.negative_prompt or None, guidance_scale=params.cfg_scale,
        num_inference_steps=params.steps, height=params.height, width=params.width, output_type="latent",
        return_dict=False, generator=torch.Generator().manual_seed(params.seed), **inputs,
    )[0]  # fmt: skip
    return answer[0]


def of_engine(case: Case, engine: Engine, weights: Weights, nets: Sequence[ControlNet]) -> Tensor:
    """Return the final latent [4, h/8, w/8] by the engine."""
    params = params_of(case)
    controls = zip(units_of(case), nets, strict=True)
    inputs = tuple(ControlInput(unit, net, picture(params, at)) for at, (unit, net) in enumerate(controls))
    kit = Kit(weights, source=picture(params, len(nets)) if params.img2img else None, controls=inputs)
    latent: Tensor = engine.render(parity.undecoded(render(params, kit))).result(parity.SECONDS)
    return latent


def picture(params: RenderParams, place: int) -> Pixels:
    """Return a picture of rectangles for the unit at `place`."""
    draw = np.random.default_rng(place)
    pixels = np.full((params.height, params.width, 3), 90, np.uint8)
    for _ in range(6):
        top, left = draw.integers(0, params.height - 8), draw.integers(0, params.width - 8)
        pixels[top : top + draw.integers(8, 40), left : left + draw.integers(8, 40)] = draw.integers(0, 256, 3)
    return pixels


def _pipeline(case: Case) -> Any:
    union, xl = "Union" if case.is_union else "", "XL" if case.kind == "sdxl" else ""
    how = "" if case.denoising is None else "Img2Img"
    return getattr(diffusers, f"StableDiffusion{xl}ControlNet{union}{how}Pipeline")


def _many(case: Case) -> Any:
    return MultiControlNetUnionModel if case.is_union else MultiControlNetModel
