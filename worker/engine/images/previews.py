"""Previews: a small picture from a latent without the VAE, by a linear map or by a tiny decoder.

Both read from the card, so they wait for it: by `transfers.beside`, not on the engine's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worker.engine.images import latents
from worker.engine.images.tensors import levels
from worker.engine.transfers import fetched

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

LARGEST_SIDE: Final = 32  # cells of a latent that a decoder makes a preview of; its work grows with each
SIDE: Final = 4  # cells of a latent that the map is fitted on
SAMPLES: Final = 8
_KNOWN_SIDE: Final = 64  # pixels

Pixels = NDArray[np.uint8]  # [height, width, 3]


def mapped(denoised: Tensor, latent_rgb: Tensor) -> Pixels:
    """Return a denoised latent [channels, height, width] as bytes [height, width, 3], a pixel for each cell."""
    latent = fetched(denoised.float()).permute(1, 2, 0)  # [height, width, channels]
    return _bytes(latent @ latent_rgb[:-1] + latent_rgb[-1])


@torch.inference_mode()
def decoded(denoised: Tensor, decoder: nn.Module) -> Pixels:
    """Return a denoised latent [channels, height, width] as bytes [h, w, 3]; it is shrunk to LARGEST_SIDE."""
    small = latents.within(denoised, LARGEST_SIDE)
    return _bytes(_decoded(small, decoder).permute(1, 2, 0))


@torch.inference_mode()
def fit(decoder: nn.Module, sample: Tensor) -> float:
    """Return how well `decoder` reads latents such as `sample`: 1 is perfect, 0 or less not at all.

    It is the coefficient of determination between the known picture and `sample`, its latent, decoded.
    """
    pixels, cell = fetched(_decoded(sample, decoder)), _KNOWN_SIDE // sample.shape[-1]
    seen, known = (nn.functional.avg_pool2d(one.clamp(-1, 1), cell) for one in (pixels, known_picture()))
    missed = (seen - known).square().sum() / (known - known.mean()).square().sum()
    return 1 - float(torch.nan_to_num(missed, nan=torch.inf))


def known_picture() -> Tensor:
    """Return pixels [3, 64, 64] in -1..1: red grows to the right, green downwards, blue against both."""
    ramp = torch.linspace(-1, 1, _KNOWN_SIDE)
    red, green = ramp.expand(_KNOWN_SIDE, -1), ramp[:, None].expand(-1, _KNOWN_SIDE)
    return torch.stack([red, green, -(red + green) / 2])


@torch.inference_mode()
def sample(vae: AutoencoderKL, latent_scale: float) -> Tensor:
    """Return the latent [channels, 8, 8] that `vae` encodes the known picture to."""
    weight = next(vae.parameters())
    pixels = known_picture()[None].to(weight.device, weight.dtype)
    encoded: Tensor = vae.encode(pixels).latent_dist.mode()
    return encoded[0].float() * latent_scale


@torch.inference_mode()
def latent_rgb(vae: AutoencoderKL, latent_scale: float) -> Tensor:
    """Return the linear map [channels + 1, 3] from a latent's channels and 1 to colours in -1..1 closest to `vae`.

    Least squares over what the VAE decodes from flat latents: such a picture has one colour.
    """
    weight = next(vae.parameters())
    latents = torch.randn(
        (SAMPLES, vae.config["latent_channels"]), generator=torch.Generator().manual_seed(0)
    )  # always the same ones
    cells = latents.to(weight.device, weight.dtype)[:, :, None, None].expand(-1, -1, SIDE, SIDE) / latent_scale
    pixels: Tensor = vae.decode(cells, return_dict=False)[0]
    colours = fetched(pixels.float().mean(dim=(2, 3)))
    known = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    solution: Tensor = torch.linalg.lstsq(known, colours).solution
    return solution


@torch.inference_mode()
def _decoded(latent: Tensor, decoder: nn.Module) -> Tensor:
    """Return a latent [channels, height, width] decoded: pixels [3, h, w], float32, about -1..1."""
    weight = next(decoder.parameters())
    rows = latent[None].to(weight.device, weight.dtype, memory_format=torch.channels_last)
    pixels: Tensor = decoder(rows)[0]
    return pixels.float()


def _bytes(pixels: Tensor) -> Pixels:
    """Return values in -1..1 [h, w, 3] as bytes, also if some are not finite."""
    return fetched(levels(torch.nan_to_num(pixels)).byte()).numpy()
