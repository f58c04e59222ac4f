"""Samplers: from noise to a latent along falling sigmas, calling a model as in k-diffusion.

Each takes `model` (`denoised = yield from model(x, sigma)`), `x` [4, h/8, w/8] at the first sigma, the sigmas, and
`noise`, which draws what a step adds. None owns a state, a device or a seed. Scalars are Python's; nothing is read from
the card; `x` is never changed in place.
"""

# ruff: noqa: ARG001 - all samplers have one signature
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from torch import Tensor

from worker.engine.requests import Asks

Model = Callable[[Tensor, float], Asks[Tensor]]
Noise = Callable[[float, float], Tensor]
"""(sigma, next sigma) -> unit noise of x's shape for the step between them, each time anew."""
Sampler = Callable[[Model, Tensor, Sequence[float], Noise], Asks[Tensor]]


def euler(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Asks[Tensor]:
    """Euler's method on the probability flow (Karras et al. 2022, arXiv:2206.00364, algorithm 2 without churn)."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        x = denoised + (x - denoised) * (sigma_next / sigma)
    return x


def euler_ancestral(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, eta: float = 1.0) -> Asks[Tensor]:
    """Euler's method that steps below each sigma and adds noise up to it."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        down, up = ancestral_step(sigma, sigma_next, eta)
        x = denoised + (x - denoised) * (down / sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * up
    return x


def ddim(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Asks[Tensor]:
    """DDIM without noise of its own (Song et al. 2020, arXiv:2010.02502), which is Euler's method in these coordinates.

    The result still holds the last sigma's noise and stands at the variance-preserving scale, where DDIM is written.
    """
    x = yield from euler(model, x, sigmas, noise)
    return x / math.hypot(1, sigmas[-1])


def dpmpp_2m(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise) -> Asks[Tensor]:
    """DPM-Solver++ 2M (Lu et al. 2022, arXiv:2211.01095, algorithm 2): second order from the call before."""
    previous: Tensor | None = None
    step_before = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        if sigma_next == 0:
            return denoised
        step = math.log(sigma / sigma_next)
        target = denoised
        if previous is not None:
            target = denoised + (denoised - previous) * (step / (2 * step_before))
        x = target + (x - target) * (sigma_next / sigma)
        previous, step_before = denoised, step
    return x


def ancestral_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """Return the sigma to step down to, and the deviation of the noise that leads from there up to `sigma_next`."""
    up = min(sigma_next, eta * sigma_next * math.sqrt(max(0.0, 1 - (sigma_next / sigma) ** 2)))
    return math.sqrt(max(0.0, sigma_next**2 - up**2)), up


SAMPLERS: Final[dict[str, Sampler]] = {
    "Euler a": euler_ancestral,
    "Euler": euler,
    "DPM++ 2M": dpmpp_2m,
    "DDIM": ddim,
}
