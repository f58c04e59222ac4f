"""Final latents by diffusers' own pipelines, float32 on the CPU: what the engine is compared with.

Their Euler with timesteps spaced `trailing` takes the sigmas of the engine's Euler with the schedule Simple, as long as
the number of steps divides 1000, and starts from noise times the first sigma, as the engine does. Prompts go in as
text: the folders' tokenizers have CLIP's vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor
from torch.nn import functional

from shared.params.render import RenderParams

ALIKE: Final = {"sampler": "Euler", "schedule": "simple"}  # parameters of the engine with the sigmas of a reference


Sizes = Mapping[str, tuple[int, int]]
"""The sizes that Stable Diffusion XL sees, by diffusers' names: height and width, or top and left."""
LAST_SHARE: Final = 2.0**-24  # of the signal at the last timestep of a rescaled table, as their Euler has it


@lru_cache(2)  # of some 50 MB; a base model and its refiner
def pipeline(folder: Path) -> Any:
    """Return the pipeline of `folder` in float32, with the scheduler of a reference.

    That is their Euler. With zero terminal signal it is their DDIM, which is the same step in other coordinates: the
    first one of Euler starts from a latent times 4096, and rounding it in float32 alone costs 3e-4.
    """
    found = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    config = found.scheduler.config
    found.scheduler = ddim(config) if config.rescale_betas_zero_snr else euler(config)
    found.set_progress_bar_config(disable=True)
    return found


def euler(config: Mapping[str, Any]) -> EulerDiscreteScheduler:
    """Return diffusers' Euler at the timesteps of the schedule Simple."""
    return EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing")


def ddim(config: Mapping[str, Any]) -> DDIMScheduler:
    """Return diffusers' DDIM at the timesteps of the schedule Simple, with the last share of its Euler."""
    found = DDIMScheduler.from_config(config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True)
    found.alphas_cumprod[-1] = LAST_SHARE
    return found


def text_to_image(folder: Path, params: RenderParams, noise: Tensor, sizes: Sizes | None = None) -> Tensor:
    """Return the final latent [4, h/8, w/8] that starts from unit `noise`."""
    return _run(folder, params, noise, height=params.height, width=params.width, **(sizes or {}))


def refined(
    folders: tuple[Path, Path], params: RenderParams, noise: Tensor, switch_at: float,
    sizes: Sizes | None = None,
) -> Tensor:  # fmt: skip
    """Return the final latent of a base model and its refiner, which takes over at `switch_at` of the way."""
    base, refiner = folders
    size = {"height": params.height, "width": params.width}
    between = _run(base, params, noise, denoising_end=switch_at, **size, **(sizes or {}))
    seen = dict(sizes or {})
    if "crops_coords_top_left" in seen:  # which only the base pipeline takes for the negative prompt too
        seen["negative_crops_coords_top_left"] = seen["crops_coords_top_left"]
    return _run(refiner, params, None, image=between[None], denoising_start=switch_at, **seen)


@torch.inference_mode()
def inpainted(
    folder: Path, params: RenderParams, noise: Tensor, scene: tuple[Tensor, Tensor],
    sizes: Sizes | None = None, *, holds: bool = False,
) -> Tensor:  # fmt: skip
    """Return the final latent of an inpainting checkpoint that sees a picture outside of a mask.

    `scene` is both: pixels [3, h, w] in -1..1, and 1 where the picture is made [1, h, w]. The encoder's mean is taken,
    as by the engine: the pipeline would draw a latent. With `holds` it starts from the picture's latent, which stays
    outside of the mask.
    """
    pixels, mask = scene
    inputs: dict[str, Any] = {"height": params.height, "width": params.width, "strength": 1.0, **(sizes or {})}
    inputs |= {"image": pixels[None] / 2 + 0.5, "mask_image": mask[None]}
    inputs["masked_image_latents"] = _encoded(folder, pixels * (1 - mask))
    if not holds:
        return _run(folder, params, noise, **inputs)
    known, outside = _encoded(folder, pixels), 1 - functional.interpolate(mask[None], scale_factor=1 / 8)

    def hold(found: Any, step: int, _timestep: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        level = known + noise * found.scheduler.sigmas[step + 1]
        return {"latents": torch.where(outside > 0, level, values["latents"])}

    scheduler = pipeline(folder).scheduler
    scheduler.set_timesteps(params.steps)
    start = noise + known[0] / scheduler.sigmas[0]
    return _run(folder, params, start, callback_on_step_end=hold, **inputs)


def _encoded(folder: Path, pixels: Tensor) -> Tensor:
    """Return the latent [1, 4, h/8, w/8] of `pixels` [3, h, w]."""
    vae = pipeline(folder).vae
    latent: Tensor = vae.encode(pixels[None]).latent_dist.mode() * vae.config.scaling_factor
    return latent


@torch.inference_mode()
def _run(folder: Path, params: RenderParams, noise: Tensor | None, **inputs: Any) -> Tensor:
    """An empty negative prompt is named to no pipeline: those of Stable Diffusion XL zero it only then."""
    latent: Tensor = pipeline(folder)(
        prompt=params.prompt,
        negative_prompt=params.negative_prompt or None,
        num_inference_steps=params.steps,
        guidance_scale=params.cfg_scale,
        latents=None if noise is None else noise[None],
        output_type="latent",
        return_dict=False,
        **inputs,
    )[0]
    return latent[0]
