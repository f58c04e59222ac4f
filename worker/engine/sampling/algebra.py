"""The common part of all samplers: the types of model, noise and options, and the steps that they share.

Scalars are Python's; nothing is read from the card; `x` is never changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from worker.engine.requests import Asks

Model = Callable[[Tensor, float], Asks[Tensor]]
"""`denoised = yield from model(x, sigma)`."""
PairModel = Callable[[Tensor, float], Asks[tuple[Tensor, Tensor]]]
"""`denoised, unconditional = yield from model(x, sigma)`."""
Noise = Callable[[float, float], Tensor]
"""(sigma, next sigma) -> unit noise of x's shape for the step between them, new at each call."""


@dataclass(frozen=True)
class Options:
    """The options of `Sampling` for one sampler: those that it does not use are neutral, `eta` is a number."""

    eta: float = 1.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0


class Algorithm(Protocol):
    """A sampler as its paper has it: from the latent `x` at the first sigma to that at the last."""

    def __call__(
        self,
        model: Callable[[Tensor, float], Asks[Any]],
        x: Tensor,
        sigmas: Sequence[float],
        noise: Noise,
        options: Options,
        /,
    ) -> Asks[Tensor]: ...


def toward(x: Tensor, denoised: Tensor, ratio: float) -> Tensor:
    """Return `x` moved straight to `denoised` until `ratio` of its noise is left."""
    return denoised + (x - denoised) * ratio


def slope(x: Tensor, denoised: Tensor, sigma: float) -> Tensor:
    """Return dx/dsigma of the probability flow (Karras et al. 2022, arXiv:2206.00364): the noise, at unit variance."""
    return (x - denoised) / sigma


def midway(sigma: float, sigma_next: float) -> float:
    """Return the sigma half-way between two, by the logarithm."""
    return math.sqrt(sigma * sigma_next)


def noised(x: Tensor, noise: Noise, sigma: float, sigma_next: float, deviation: float) -> Tensor:
    """Return `x` with noise of this deviation added; none is drawn for 0."""
    return x + noise(sigma, sigma_next) * deviation if deviation else x


def ancestral_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """Return the sigma to step down to, and the deviation of the noise that leads from there up to `sigma_next`."""
    up = min(sigma_next, eta * sigma_next * math.sqrt(max(0.0, 1 - (sigma_next / sigma) ** 2)))
    return math.sqrt(max(0.0, sigma_next**2 - up**2)), up


def churned(x: Tensor, sigmas: Sequence[float], step: int, noise: Noise, options: Options) -> tuple[Tensor, float]:
    """Return `x` raised above the sigma of `step` by noise, and its new sigma (arXiv:2206.00364,
    algorithm 2). Noise is drawn at each step, also if none is added, so that later draws do not depend on the bounds.
    """
    sigma = sigmas[step]
    if not options.s_churn:
        return x, sigma
    drawn = noise(sigma, sigmas[step + 1])
    if not options.s_tmin <= sigma <= options.s_tmax:
        return x, sigma
    raised = sigma * (1 + min(options.s_churn / (len(sigmas) - 1), math.sqrt(2) - 1))
    return x + drawn * (options.s_noise * math.sqrt(raised**2 - sigma**2)), raised
