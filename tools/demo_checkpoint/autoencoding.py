"""The VAE: pictures to latents an eighth as wide, and back."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers.models import AutoencoderKL
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from tools.demo_checkpoint.dataset import Dataset
from tools.demo_checkpoint.training import half_precision

CROP, BATCH, TRIES = 64, 16, 3
KL_WEIGHT = 1e-5


def prepare(vae: AutoencoderKL) -> None:
    """Let a fresh encoder begin nearly without noise, else the decoder learns to ignore what it says."""
    with torch.no_grad():
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] -= 6


def reconstruction_loss(vae: AutoencoderKL, data: Dataset, device: str) -> Callable[[int, float], dict[str, Tensor]]:
    """Squared error first, absolute error and its slopes later: the first finds colours, the second sharpens edges."""

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        rng = np.random.default_rng([1, step])
        shown = crops(data.pictures, rng) if step % 3 else wholes(data.pictures, rng)
        pixels = as_pixels(shown).to(device)
        with half_precision(device):
            latent = vae.encode(pixels).latent_dist
            restored = vae.decode(latent.sample()).sample
        error = restored.float() - pixels
        squared, absolute = error.square().mean(), error.abs().mean()
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        kl = latent.kl().mean() / latent.mean[0].numel()
        late = min(max((progress - 0.05) / 0.2, 0.0), 1.0)
        total = (1 - late) * squared + (0.25 + 0.75 * late) * absolute + 0.25 * late * slopes + KL_WEIGHT * kl
        return {"loss": total, "squared": squared, "absolute": absolute, "kl": kl}

    return loss


def crops(pictures: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Pieces of random pictures, on the grid of latent cells, each the most detailed of a few: [batch, 64, 64, 3]."""
    chosen = []
    for picture in rng.integers(0, len(pictures), BATCH):
        corners = 8 * rng.integers(0, (pictures.shape[1] - CROP) // 8 + 1, (TRIES, 2))
        pieces = [pictures[picture, top : top + CROP, left : left + CROP] for top, left in corners]
        chosen.append(max(pieces, key=_detail))
    return np.stack(chosen)


def wholes(pictures: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """As many pixels in whole pictures: what lies at their borders, and far from any, is learnt from these."""
    return pictures[np.sort(rng.integers(0, len(pictures), BATCH * CROP**2 // pictures.shape[1] ** 2))]


def _detail(piece: NDArray[np.uint8]) -> float:
    green = piece[..., 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def as_pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [rows, h, w, 3] to -1..1, [rows, 3, h, w] in channels_last."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def as_pictures(pixels: Tensor) -> NDArray[np.uint8]:
    """-1..1 [rows, 3, h, w] to uint8 [rows, h, w, 3]."""
    return ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def normalise(vae: AutoencoderKL, latents: Tensor, scale_factor: float) -> Tensor:
    """Unit variance and zero mean for each latent channel, folded into the VAE's outermost 1x1 convolutions.

    The VAE's pictures stay as they are; its latents times `scale_factor` become what a U-Net likes. `latents`: what
    `encode` gave, [count, 4, h, w]; answers them normalised, that is times `scale_factor` already.
    """
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    stretch = 1 / (spread * scale_factor)
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight /= stretch[None, :, None, None]
    quant.weight[:4] *= stretch[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * stretch
    quant.bias[4:] += 2 * stretch.log()
    return (latents - mean[:, None, None]) / spread[:, None, None]


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: NDArray[np.uint8], device: str) -> Tensor:
    """Means of the latents, unscaled, float32 [rows, 4, h/8, w/8] on the CPU."""
    with half_precision(device):
        return vae.encode(as_pixels(pictures).to(device)).latent_dist.mean.float().cpu()


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> NDArray[np.uint8]:
    """Pictures from unscaled latents."""
    return as_pictures(vae.decode(latents).sample)


@torch.no_grad()
def restore(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures to latents and back."""
    return as_pictures(vae.decode(vae.encode(as_pixels(pictures)).latent_dist.mean).sample)
