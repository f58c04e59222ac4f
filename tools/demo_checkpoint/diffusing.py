"""Text encoder and U-Net, trained together on latents: predict the noise in a noised picture from its caption."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.prompts.tokenizer import Tokenizer
from tools.demo_checkpoint import captions, scenes
from tools.demo_checkpoint.layout import END, POSITIONS, START, Checkpoint
from tools.demo_checkpoint.training import half_precision

BATCH = 32
SNR_LIMIT = 5.0
TIMESTEPS = 1000


def networks(checkpoint: Checkpoint) -> nn.ModuleDict:
    """The two networks that are trained together, with attention written out.

    torch 2.13's fused attention takes a third of a whole training step on the CPU, mostly on its way back.
    """
    checkpoint.unet.set_attn_processor(AttnProcessor())
    checkpoint.text.set_attn_implementation("eager")
    return nn.ModuleDict({"text": checkpoint.text, "unet": checkpoint.unet})


@torch.no_grad()
def lead_away(trained: nn.ModuleDict, before: nn.ModuleDict, share: float) -> None:
    """Change `trained` by `share` of what training changed since `before`: what it learnt, a little stronger.

    Ilharco et al., "Editing models with task arithmetic" (2023).
    """
    for now, then in zip(trained.parameters(), before.parameters(), strict=True):
        now.lerp_(then, -share)


class Noised(NamedTuple):
    """Which latents (their numbers), with noise [rows, 4, h, w], at which times [rows]; `rng` for other choices."""

    numbers: NDArray[np.int64]
    latents: Tensor
    times: Tensor
    rng: Generator


def from_captions(pair: nn.ModuleDict, listed: Sequence[scenes.Scene], device: str) -> Callable[[Noised], Tensor]:
    """Predicts the noise from the captions of the scenes."""

    def predicted(noised: Noised) -> Tensor:
        words = tokens([captions.said(listed[number], noised.rng) for number in noised.numbers]).to(device)
        context = pair["text"](input_ids=words).last_hidden_state
        return pair["unet"](noised.latents, noised.times, context).sample

    return predicted


def min_snr(signal_to_noise: Tensor) -> Tensor:
    """Weights of errors by signal-to-noise ratio, limited where little noise makes a picture easy.

    Hang et al., "Efficient diffusion training via min-SNR weighting" (2023).
    """
    return signal_to_noise.clamp(max=SNR_LIMIT) / signal_to_noise


def noise_loss(
    predicted: Callable[[Noised], Tensor],
    latents: Tensor,
    device: str,
    batch: int = BATCH,
    weight_of: Callable[[Tensor], Tensor] = min_snr,
) -> Callable[[int, float], dict[str, Tensor]]:
    """Mean squared error of the predicted noise, weighted by `weight_of` its signal-to-noise ratio.

    `latents` are of unit variance, [count, 4, h, w].
    """
    kept = alphas_cumprod().to(device)

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        del progress
        rng = np.random.default_rng([2, step])
        rows = rng.integers(0, len(latents), batch)
        clean = latents[torch.from_numpy(rows)].float().to(device)
        # One time in each of `batch` equal spans: less variance than as many free draws.
        times = torch.from_numpy((np.arange(batch) + rng.random(batch)) * TIMESTEPS / batch).long().to(device)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32)).to(device)
        share = kept[times, None, None, None]
        with half_precision(device):
            guess = predicted(Noised(rows, share.sqrt() * clean + (1 - share).sqrt() * noise, times, rng))
        squared = (guess.float() - noise).square().mean((1, 2, 3))
        weight = weight_of(kept[times] / (1 - kept[times]))
        return {"loss": (weight * squared).mean(), "squared": squared.mean()}

    return loss


def tokens(texts: Sequence[str]) -> Tensor:
    """CLIP's tokens, [rows, 77]: start, words, end, and end again to the last position."""
    encode = Tokenizer().encode
    rows = [[START, *encode(text)[: POSITIONS - 2]] for text in texts]
    return torch.tensor([row + [END] * (POSITIONS - len(row)) for row in rows])


@lru_cache(maxsize=1)
def alphas_cumprod() -> Tensor:
    """The share of the picture that is left at each of the thousand times ("scaled linear")."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


@torch.no_grad()
def euler_ancestral(
    pair: nn.ModuleDict, prompts: Sequence[str], seed: int, *, steps: int = 20, scale: float = 7.0
) -> Tensor:
    """Latents of unit variance for prompts, [rows, 4, 16, 16]; after Katherine Crowson's k-diffusion."""
    kept = alphas_cumprod()
    times = torch.linspace(TIMESTEPS - 1, 0, steps).round().long()
    sigmas = [*((1 - kept[times]) / kept[times]).sqrt().tolist(), 0.0]
    generator = torch.Generator().manual_seed(seed)
    context = pair["text"](input_ids=tokens([*prompts, *[""] * len(prompts)])).last_hidden_state
    x = sigmas[0] * torch.randn((len(prompts), 4, 16, 16), generator=generator)
    for time, (sigma, below) in zip(times, pairwise(sigmas), strict=True):
        inputs = (x / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1)
        named, unnamed = pair["unet"](inputs, time, context).sample.chunk(2)
        noise = unnamed + scale * (named - unnamed)
        up = min(below, (below**2 * (sigma**2 - below**2) / sigma**2) ** 0.5)
        x = x + noise * ((below**2 - up**2) ** 0.5 - sigma) + up * torch.randn(x.shape, generator=generator)
    return x
