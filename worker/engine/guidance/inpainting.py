"""Inpainting: models that leave a part of a picture unchanged, and the extra inputs of inpainting checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, cat, ones, zeros
from torch.nn import functional

from worker.engine.architectures.weights import Weights
from worker.engine.images.latents import mixed
from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Model
from worker.engine.vae import encoded


@dataclass(frozen=True, eq=False)
class View:
    """The picture that an inpainting checkpoint sees beside the noise, with a part of it hidden."""

    pixels: Tensor  # [3, h, w] in -1..1
    mask: Tensor  # [1, h, w], 1 where it is hidden, else 0
    weight: float  # how much of it is hidden there


def seen(weights: Weights, view: View | None, width: int, height: int) -> Asks[Tensor]:
    """Return the extra channels [1 + channels, h/cell, w/cell] of `view`: mask and masked latent, by the VAE of
    `weights`.

    No view: all is hidden, as in part of the training.
    """
    on = weights.device.torch
    view = view or View(zeros(3, height, width, device=on), ones(1, height, width, device=on), 1)
    latent = yield from encoded(weights, view.pixels * (1 - view.mask * view.weight))
    scale = 1 / weights.latent.cell
    mask = functional.interpolate(view.mask[None], scale_factor=scale)[0]  # nearest, as in its training
    return cat([mask, latent])


def held(model: Model, known: Tensor, mask: Tensor) -> Model:
    """Return `model` with its result outside of `mask` [1, h/cell, w/cell] replaced by the `known` latent."""

    def inpainted(x: Tensor, sigma: float) -> Asks[Tensor]:
        denoised = yield from model(x, sigma)
        return mixed(denoised, known, mask)

    return inpainted


def reset(model: Model, known: Tensor, noise: Tensor, mask: Tensor) -> Model:
    """Return `model` with its input outside of `mask` replaced by the `known` latent, at the current level of `noise`.

    As latent diffusion inpaints with DDIM (Rombach et al. 2022, arXiv:2112.10752): the model sees the known part as it
    would be on the way to `known`, and not the sampler's own result.
    """

    def inpainted(x: Tensor, sigma: float) -> Asks[Any]:
        return (yield from model(mixed(x, known + noise * sigma, mask), sigma))

    return inpainted


def released(model: Model, known: Tensor, noise: Tensor, strength: Tensor, sigmas: Sequence[float]) -> Model:
    """Return `model` for which each place is known until the share of the way that is left falls to its `strength`.

    Differential diffusion (Levin and Fried 2023, arXiv:2306.00950): the weaker a place is masked, the later it is
    released, and the less of it changes. `strength` [1, h/cell, w/cell] is in 0..1, `sigmas` those of this pass.
    """

    def inpainted(x: Tensor, sigma: float) -> Asks[Any]:
        left = sum(sigma > later for later in sigmas[1:]) / (len(sigmas) - 1)
        free = (strength >= left).to(x.dtype)
        return (yield from model(mixed(x, known + noise * sigma, free), sigma))

    return inpainted
