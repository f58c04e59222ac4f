"""Hires fix: a second pass at a larger size over the result of the first."""

from __future__ import annotations

from torch import Tensor

from shared.params import geometry
from shared.params.groups import Hires
from shared.params.upscalers import LATENT
from worker.engine.images import latents
from worker.engine.images.tensors import to_tensor
from worker.engine.pipelines.denoise_pass import Pass, planned
from worker.engine.pipelines.inputs import Kit
from worker.engine.requests import Asks, Work
from worker.engine.transfers import pinned, to_device
from worker.engine.upscaling.architectures import PixelNetwork
from worker.engine.upscaling.enlarging import enlarged_by
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


def larger(
    latent: Tensor, first: Pass, second: Pass, hires: Hires, upscaler: PixelNetwork | None = None
) -> Asks[Tensor]:
    """Return the first pass's `latent` at the size of the second: resized itself, or as a picture in between.

    The picture is enlarged by `upscaler` if there is one.
    """
    target, cell = geometry.hires_size(first.params.width, first.params.height, hires), second.weights.latent.cell
    height, width = target.height // cell, target.width // cell
    if hires.upscaler in LATENT:
        whole = latents.resized(latent, height, width, hires.upscaler)
    else:
        pixels = yield from decoded(first.weights, latent)
        device = second.weights.device
        size, is_nearest = (width * cell, height * cell), hires.upscaler == "Nearest"  # "None" is Lanczos too
        pixels = yield from enlarged_by(upscaler, pixels, size, device, is_nearest=is_nearest)
        enlarged = yield Work(lambda: pinned(to_tensor(pixels), device))
        whole = yield from encoded(second.weights, to_device(enlarged, device))
    return latents.cut(whole, target.cut_x, target.cut_y)
