"""Final latents with IP-Adapters: the engine's beside those of diffusers' pipelines, by case."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from shared.media.arrays import Pixels
from shared.params.controlnet import ControlUnit
from shared.params.ip_adapter import IPAdapterUnit
from shared.params.render import RenderParams
from tests.support import controlled, ip_adapters, parity, references
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.adapters.ip_adapters import IPAdapter
from worker.engine.answers.pixels import apply
from worker.engine.architectures.reading.ip_adapters import Form
from worker.engine.architectures.weights import Weights
from worker.engine.images.preprocessors import hint
from worker.engine.loading.image_encoders import ImageEncoder
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import ControlInput, IPAdapterInput, Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Apply

SHA: Final = "0" * 64


@dataclass(frozen=True)
class Case:
    """A render that both sides do; each adapter has its form, its weight and so many pictures."""

    kind: str
    adapters: tuple[tuple[Form, float, int], ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    is_controlled: bool = False  # by a control net, which goes without the pictures


CASES: Final[Mapping[str, Case]] = {
    "SD 1, plain": Case("sd1", (("plain", 0.6, 1),), {"negative_prompt": "snow"}),
    "SD 1, plus, two pictures": Case("sd1", (("plus", 0.6, 2),)),
    "SD 1, plain, two pictures": Case("sd1", (("plain", 1.0, 2),)),
    "SD 1, full": Case("sd1", (("full", 0.6, 1),)),
    "SD 1, two adapters": Case("sd1", (("plain", 0.5, 1), ("plus", 0.7, 1))),
    "SD 1, no guidance": Case("sd1", (("plus", 1.0, 1),), {"cfg_scale": 1.0}),
    "SD 1, plus, beside a control net": Case("sd1", (("plus", 0.6, 1),), is_controlled=True),
    "SDXL, plain": Case("sdxl", (("plain", 0.6, 1),), {"height": 96}),
    "SDXL, plus": Case("sdxl", (("plus", 0.6, 1),), {"negative_prompt": "snow"}),
}


def params_of(case: Case) -> RenderParams:
    """Return the parameters of a case."""
    return parity.params_of(parity.Case(case.kind, case.params))


def pictures(case: Case, place: int) -> tuple[Pixels, ...]:
    """Return the pictures of the adapter at `place`, of several proportions."""
    count = case.adapters[place][2]
    sizes = [RenderParams(prompt="", width=96 + 32 * one, height=128 - 32 * place) for one in range(count)]
    return tuple(controlled.picture(size, 10 * place + one) for one, size in enumerate(sizes))


@torch.inference_mode()
def of_diffusers(
    case: Case, folder: Path, encoder: Any, adapters: Sequence[Mapping[str, Tensor]], net: Any = None
) -> Tensor:
    """Return the final latent [4, h/8, w/8] by diffusers' pipeline with the checkpoint in `folder`."""
    params, found = params_of(case), references.pipeline(folder)
    seen = CLIPImageProcessorPil(size=ip_adapters.SIDE, crop_size=ip_adapters.SIDE)
    own = {"unet": copy.deepcopy(found.unet), "image_encoder": encoder, "feature_extractor": seen}
    kind, control = type(found), {}
    if net is not None:
        kind, own["controlnet"] = diffusers.StableDiffusionControlNetPipeline, net
        control["image"] = hint(controlled.picture(params, 0), None, _control())[None]
    pipeline = kind(**found.components | own)
    pipeline.set_progress_bar_config(disable=True)
    parts = [{name: _float(part) for name, part in ip_adapters.apart(one).items()} for one in adapters]
    empty = [""] * len(parts)  # no files
    pipeline.load_ip_adapter(parts, subfolder=empty, weight_name=empty, low_cpu_mem_usage=False)
    pipeline.set_ip_adapter_scale([weight for _, weight, _ in case.adapters])
    shown = [[Image.fromarray(one) for one in pictures(case, place)] for place in range(len(case.adapters))]
    answer: Tensor = pipeline(
        prompt=params.prompt, negative_prompt=params.negative_prompt or None, guidance_scale=params.cfg_scale,
        num_inference_steps=params.steps, height=params.height, width=params.width, output_type="latent",
        return_dict=False, generator=torch.Generator().manual_seed(params.seed), ip_adapter_image=shown,
        **control,
    )[0]  # fmt: skip
    return answer[0]


def of_engine(
    case: Case,
    engine: Engine,
    weights: Weights,
    encoder: ImageEncoder,
    adapters: Sequence[IPAdapter],
    *,
    net: ControlNet | None = None,
) -> Tensor:
    """Return the final latent [4, h/8, w/8] by the engine."""
    inputs = tuple(
        IPAdapterInput(unit(*pictures(case, place), weight=weight), adapter, encoder, pictures(case, place))
        for place, (adapter, (_, weight, _)) in enumerate(zip(adapters, case.adapters, strict=False))
    )
    params = params_of(case)
    controls = (ControlInput(_control(), net, controlled.picture(params, 0)),) if net else ()
    kit = Kit(weights, ip_adapters=inputs, controls=controls)
    latent: Tensor = engine.render(parity.undecoded(render(params, kit))).result(parity.SECONDS)
    return latent


def unit(*pictures: Pixels, **how: Any) -> IPAdapterUnit:
    """Return the options of an adapter with these pictures."""
    hashes = tuple(hashlib.sha256(repr(one.shape).encode() + one.tobytes()).hexdigest() for one in pictures)
    return IPAdapterUnit(model="pictures", pictures=hashes, **how)


def read(adapter: IPAdapter, encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """Return keys and values [tokens, …] of normalised pixels [3, side, side], by the answers to requests."""
    [features] = apply([Apply(encoder.readers[adapter.sizes.features], pixels)])
    assert isinstance(features, Tensor)
    [found] = apply([Apply(adapter.network, features)])
    assert isinstance(found, Tensor)
    return found


def _control() -> ControlUnit:
    return ControlUnit(model="net", picture=SHA, resize="resize")


def _float(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.float() for name, one in weights.items()}
