"""Text encoder and U-Net, trained together on latents: predict the noise in a noised picture from its caption."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
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


def noise_loss(
    pair: nn.ModuleDict, latents: Tensor, listed: Sequence[scenes.Scene], device: str
) -> Callable[[int, float], dict[str, Tensor]]:
    """Mean squared error of the predicted noise, its weight limited where little noise makes it easy.

    `latents` are of unit variance, [count, 4, h, w]. Weights: Hang et al., "Efficient diffusion training via min-SNR
    weighting" (2023).
    """
    kept = alphas_cumprod().to(device)

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        del progress
        rng = np.random.default_rng([2, step])
        rows = rng.integers(0, len(latents), BATCH)
        clean = latents[torch.from_numpy(rows)].float().to(device)
        words = tokens([captions.said(listed[row], rng) for row in rows]).to(device)
        # One time in each of BATCH equal spans: less variance than as many free draws.
        times = torch.from_numpy((np.arange(BATCH) + rng.random(BATCH)) * TIMESTEPS / BATCH).long().to(device)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32)).to(device)
        share = kept[times, None, None, None]
        with half_precision(device):
            context = pair["text"](input_ids=words).last_hidden_state
            guess = pair["unet"](share.sqrt() * clean + (1 - share).sqrt() * noise, times, context).sample
        squared = (guess.float() - noise).square().mean((1, 2, 3))
        signal_to_noise = kept[times] / (1 - kept[times])
        weight = signal_to_noise.clamp(max=SNR_LIMIT) / signal_to_noise
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
