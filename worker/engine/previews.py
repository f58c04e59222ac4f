"""Previews: a small picture straight from a latent, by a linear map, without the VAE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

SIDE: Final = 4  # cells of a latent that the map is fitted on
SAMPLES: Final = 8


def preview(denoised: Tensor, latent_rgb: Tensor) -> NDArray[np.uint8]:
    """Return a denoised latent [4, h/8, w/8] as bytes [h/8, w/8, 3], a pixel for each latent cell.

    Reads from the card, so it waits for it: not for the engine's thread.
    """
    latent = denoised.float().cpu().permute(1, 2, 0)  # [h/8, w/8, 4]
    pixels = torch.nan_to_num(latent @ latent_rgb[:4] + latent_rgb[4])
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


@torch.inference_mode()
def latent_rgb(vae: AutoencoderKL, latent_scale: float) -> Tensor:
    """Return the linear map [5, 3] from a latent's channels and 1 to colours in -1..1 closest to `vae`.

    Least squares over what the VAE decodes from flat latents: such a picture is of one colour.
    """
    weight = next(vae.parameters())
    latents = _flat_latents()
    cells = latents.to(weight.device, weight.dtype)[:, :, None, None].expand(-1, -1, SIDE, SIDE) / latent_scale
    pixels: Tensor = vae.decode(cells, return_dict=False)[0]
    colours = pixels.float().mean(dim=(2, 3)).cpu()
    known = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    solution: Tensor = torch.linalg.lstsq(known, colours).solution
    return solution


def _flat_latents() -> Tensor:
    """Latents [samples, 4] of unit deviation, always the same ones."""
    return torch.randn((SAMPLES, 4), generator=torch.Generator().manual_seed(0))
