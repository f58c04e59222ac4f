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

from shared.params.render import RenderParams

ALIKE: Final = {"sampler": "Euler", "schedule": "Simple"}  # parameters of the engine with the sigmas of a reference


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


def text_to_image(
    folder: Path, params: RenderParams, noise: Tensor, sizes: Mapping[str, tuple[int, int]] | None = None
) -> Tensor:
    """Return the final latent [4, h/8, w/8] that starts from unit `noise`.

    `sizes` are those of Stable Diffusion XL by diffusers' names: each is height, width, or top, left.
    """
    return _run(folder, params, noise, height=params.height, width=params.width, **(sizes or {}))


def refined(
    folders: tuple[Path, Path], params: RenderParams, noise: Tensor, switch_at: float,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Tensor:  # fmt: skip
    """Return the final latent of a base model and its refiner, which takes over at `switch_at` of the way."""
    base, refiner = folders
    size = {"height": params.height, "width": params.width}
    between = _run(base, params, noise, denoising_end=switch_at, **size, **(sizes or {}))
    return _run(refiner, params, None, image=between[None], denoising_start=switch_at, **(sizes or {}))


def inpainted(folder: Path, params: RenderParams, noise: Tensor, pixels: Tensor, mask: Tensor) -> Tensor:
    """Return the final latent of an inpainting checkpoint that sees `pixels` [3, h, w] in -1..1 outside of `mask`.

    `mask` [1, h, w] is 1 where the picture is made. The encoder's mean is taken, as by the engine: the pipeline would
    draw one.
    """
    found = pipeline(folder)
    hidden = found.vae.encode((pixels * (1 - mask))[None]).latent_dist.mode() * found.vae.config.scaling_factor
    pictures = {"image": pixels[None] / 2 + 0.5, "mask_image": mask[None], "masked_image_latents": hidden}
    size = {"height": params.height, "width": params.width}
    return _run(folder, params, noise, strength=1.0, **pictures, **size)


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
