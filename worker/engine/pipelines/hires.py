"""Hires fix: a second pass at a larger size over the result of the first."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from shared.params import geometry
from shared.params.groups import Hires
from shared.params.upscalers import LATENT
from worker.engine.devices import Device
from worker.engine.images import latents
from worker.engine.images.arrays import Pixels, enlarged, to_tensor
from worker.engine.pipelines.denoise_pass import Pass, planned
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Asks, Work
from worker.engine.transfers import pinned, to_device
from worker.engine.vae import decoded, encoded


def second_pass(first: Pass, hires: Hires, kit: Kit) -> Pass:
    """Return the pass over the result of `first`; values that `hires` leaves open are those of the first."""
    params = first.params
    width, height = geometry.hires_size(params.width, params.height, hires).final
    own = {
        "prompt": hires.prompt or params.prompt,
        "negative_prompt": hires.negative_prompt or params.negative_prompt,
        "sampler": hires.sampler or params.sampler,
        "schedule": hires.schedule or params.schedule,
        "steps": hires.steps or params.steps,
        "width": width,
        "height": height,
    }
    steps = geometry.hires_steps(params, hires)
    weights = kit.hires or kit.weights
    params = params.model_copy(update=own)
    return planned(params, weights, kit.refiner, adapters=kit.adapters, steps=steps, before=first)


def larger(latent: Tensor, first: Pass, second: Pass, hires: Hires) -> Asks[Tensor]:
    """Return the first pass's `latent` at the size of the second: resized itself, or as a picture in between."""
    target, cell = geometry.hires_size(first.params.width, first.params.height, hires), second.weights.latent.cell
    height, width = target.height // cell, target.width // cell
    if hires.upscaler in LATENT:
        whole = latents.resized(latent, height, width, hires.upscaler)
    else:
        pixels = yield from decoded(first.weights, latent)
        device = second.weights.device
        enlarged_pixels = yield Work(partial(_enlarged, pixels, width * cell, height * cell, hires.upscaler, device))
        whole = yield from encoded(second.weights, to_device(enlarged_pixels, device))
    return latents.cut(whole, target.cut_x, target.cut_y)


def _enlarged(pixels: Pixels, width: int, height: int, upscaler: str, device: Device) -> Tensor:
    """Return `pixels` at another size; "None" resizes by Lanczos too."""
    whole = enlarged(pixels, width, height, is_nearest=upscaler == "Nearest")
    return pinned(to_tensor(whole), device)
