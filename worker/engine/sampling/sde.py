"""Samplers of the diffusion's stochastic equation: DPM++ SDE, 2M SDE, 2M SDE Heun, 3M SDE.

Their noise is the increment of a Brownian motion over sigma, so that more steps refine a picture and do not change it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Model, Noise, Options, ancestral_step, midway, noised, toward


def dpmpp_sde(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095) of second order in one step, stochastic: two calls a step."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        if sigma_next == 0:
            return denoised
        between = midway(sigma, sigma_next)
        down, up = ancestral_step(sigma, between, options.eta)
        middle = noised(toward(x, denoised, down / sigma), noise, sigma, between, up * options.s_noise)
        denoised = yield from model(middle, between)
        down, up = ancestral_step(sigma, sigma_next, options.eta)
        x = noised(toward(x, denoised, down / sigma), noise, sigma, sigma_next, up * options.s_noise)
    return x


def dpmpp_2m_sde(  # noqa: PLR0913 - the signature of all, and the variant
    model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options, *, is_heun: bool = False
) -> Asks[Tensor]:
    """SDE-DPM-Solver++ 2M (arXiv:2211.01095, appendix): second order from the call before, by the midpoint rule or by
    Heun's.
    """
    previous: Tensor | None = None
    step_before = 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        if sigma_next == 0:
            return denoised
        step = math.log(sigma / sigma_next)
        decay = step * (1 + options.eta)
        x = toward(x, denoised, math.exp(-decay))
        if previous is not None:
            weight = _phi_2(decay) if is_heun else -math.expm1(-decay) / 2
            x = x + (denoised - previous) * (weight * step / step_before)
        x = noised(x, noise, sigma, sigma_next, _deviation(sigma_next, step, options))
        previous, step_before = denoised, step
    return x


def dpmpp_3m_sde(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """The same of third order from the two calls before, by exponential integration of a quadratic."""
    known: list[tuple[Tensor, float]] = []  # denoised latents and the steps after them, the latest first
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        if sigma_next == 0:
            return denoised
        step = math.log(sigma / sigma_next)
        decay = step * (1 + options.eta)
        x = toward(x, denoised, math.exp(-decay)) + _bend(denoised, known, step, decay)
        x = noised(x, noise, sigma, sigma_next, _deviation(sigma_next, step, options))
        known = [(denoised, step), *known[:1]]
    return x


def _bend(denoised: Tensor, known: Sequence[tuple[Tensor, float]], step: float, decay: float) -> Tensor | float:
    """Return the correction of the step by earlier calls beside `denoised`: nothing, a line, or a parabola."""
    if not known:
        return 0.0
    previous, step_before = known[0]
    first = (denoised - previous) * (step / step_before)
    if len(known) == 1:
        return first * _phi_2(decay)
    earlier, step_earlier = known[1]
    second = (previous - earlier) * (step / step_earlier)
    ratio, ratio_earlier = step_before / step, step_earlier / step
    change = (first - second) / (ratio + ratio_earlier)
    return (first + change * ratio) * _phi_2(decay) - change * _phi_3(decay)


def _deviation(sigma_next: float, step: float, options: Options) -> float:
    return sigma_next * math.sqrt(-math.expm1(-2 * step * options.eta)) * options.s_noise


def _phi_2(decay: float) -> float:
    return math.expm1(-decay) / decay + 1


def _phi_3(decay: float) -> float:
    return _phi_2(decay) / decay - 0.5
