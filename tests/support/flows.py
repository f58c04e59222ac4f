"""Probability flows dx/dsigma = (x - denoised) / sigma with their fine integration, to which samplers are held."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.prediction import Prediction
from worker.engine.sigma_table import SigmaTable

Denoised = Callable[[Tensor, float], Tensor]
"""(x, sigma) -> the denoised latent, in float64."""
Way = Callable[[float], Tensor]
"""sigma -> the latent that one flow has there."""

MEANS: Final = torch.tensor([-1.5, 0.2, 1.2], dtype=torch.float64)
SHARES: Final = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
DEVIATION: Final = 0.3
_BEND: Final = 0.01  # sigma below which the integration's steps are even in sigma, and above it in the logarithm
_NEAREST: Final = 1e-6  # to the end at sigma 0, where the slope is 0 / 0
_GAIN: Final = 0.1  # of a random network's output
_SLOWEST: Final = 3.0  # radians over all timesteps: embeddings of a timestep that turn further are left out


def finely(denoised: Denoised, x: Tensor, highest: float, *, tolerance: float = 1e-7) -> Way:
    """Return the flow from `x` at `highest` down to sigma 0: by Dormand and Prince's method of eighth order."""

    def slope(place: float, x: Any) -> Any:
        latent = torch.from_numpy(x).reshape(shape)
        return ((latent - denoised(latent, _BEND * math.sinh(place))) / math.tanh(place)).numpy().ravel()

    shape, span = x.shape, (math.asinh(highest / _BEND), _NEAREST)
    found = solve_ivp(
        slope, span, x.double().numpy().ravel(), "DOP853", dense_output=True, rtol=tolerance, atol=tolerance
    )

    def way(sigma: float) -> Tensor:
        return torch.from_numpy(found.sol(max(math.asinh(sigma / _BEND), _NEAREST))).reshape(shape)

    return way


def mixture(x: Tensor, sigma: float) -> Tensor:
    """Return the denoised mean of a mixture of three normal distributions, by its formula."""
    variance = DEVIATION**2 + sigma**2
    distance = x[..., None] - MEANS
    share = torch.softmax(torch.log(SHARES) - distance**2 / (2 * variance), -1)
    return (share * (MEANS + distance * (DEVIATION**2 / variance))).sum(-1)


def smooth(unet: UNet2DConditionModel, table: SigmaTable, prediction: Prediction) -> UNet2DConditionModel:
    """Return a small random `unet`, changed in place, so that its flow bends no faster than those of trained ones.

    It predicts what is right for latents of unit variance, and adds a tenth of its own output.
    """
    embedding = unet.get_submodule("time_embedding.linear_1")
    assert isinstance(embedding, nn.Linear)
    half = embedding.in_features // 2
    turns = len(table.values) * torch.exp(-math.log(10_000) * torch.arange(half) / half)
    with torch.no_grad():
        embedding.weight[:, (turns > _SLOWEST).repeat(2)] = 0

    def with_right_prediction(_: nn.Module, inputs: Sequence[Tensor], output: tuple[Tensor]) -> tuple[Tensor]:
        x, timesteps, *_others = inputs
        right = torch.zeros_like(x)  # the velocity
        if prediction is Prediction.NOISE:
            sigma = torch.tensor([table.sigma(timestep) for timestep in timesteps.tolist()], dtype=x.dtype)
            right = x * (sigma / (1 + sigma**2).sqrt())[:, None, None, None]
        return (right + output[0] * _GAIN,)

    unet.register_forward_hook(with_right_prediction)
    return unet


def of_network(
    unet: UNet2DConditionModel, table: SigmaTable, prediction: Prediction, towards: Conditioning
) -> Denoised:
    """Return what `unet`, an SDXL's in float64, denoises `towards` a conditioning; written out, without the engine."""
    assert towards.pooled is not None
    added = {
        "text_embeds": towards.pooled[None].double(),
        "time_ids": torch.tensor([towards.sizes], dtype=torch.float64),
    }

    @torch.inference_mode()
    def denoised(x: Tensor, sigma: float) -> Tensor:
        signal = 1 / (1 + sigma**2)  # alpha-bar
        timestep = torch.tensor([table.timestep(sigma)], dtype=torch.float64)
        seen, context = x[None] * signal**0.5, towards.context[None].double()
        output: Tensor = unet(seen, timestep, context, added_cond_kwargs=added, return_dict=False)[0][0]
        if prediction is Prediction.NOISE:
            return x - sigma * output
        return signal * x - (1 - signal) ** 0.5 * output

    return denoised
