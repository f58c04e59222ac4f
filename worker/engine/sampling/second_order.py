"""Samplers of two model calls a step: Heun, DPM2, DPM2 a, DPM++ 2S a, Restart. A step to sigma 0 takes one call."""

# ruff: noqa: ARG001 - all samplers have one signature
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from torch import Tensor

from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Model, Noise, Options, ancestral_step, churned, midway, noised, slope, toward
from worker.engine.sampling.schedules import bent
from worker.engine.sigma_table import PURE_NOISE

_RESTART_LOW: Final = 0.1
_RESTART_HIGH: Final = 2.0

Stretch = tuple[float, float]  # from a sigma down to the next


def heun(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """Heun's method on the probability flow (Karras et al. 2022, arXiv:2206.00364, algorithm 2)."""
    for step, sigma_next in enumerate(sigmas[1:]):
        x, sigma = churned(x, sigmas, step, noise, options)
        x = yield from _heun_step(model, x, sigma, sigma_next)
    return x


def _heun_step(model: Model, x: Tensor, sigma: float, sigma_next: float) -> Asks[Tensor]:
    denoised = yield from model(x, sigma)
    end = toward(x, denoised, sigma_next / sigma)
    if sigma_next == 0:
        return end
    denoised_end = yield from model(end, sigma_next)
    mean = (slope(x, denoised, sigma) + slope(end, denoised_end, sigma_next)) / 2
    return x + mean * (sigma_next - sigma)


def dpm_2(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """The midpoint method in log sigma, after DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927), with churn."""
    for step, sigma_next in enumerate(sigmas[1:]):
        x, sigma = churned(x, sigmas, step, noise, options)
        x = yield from _midpoint_step(model, x, sigma, sigma_next)
    return x


def dpm_2_ancestral(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """`dpm_2` that steps below each sigma and adds noise up to it."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral_step(sigma, sigma_next, options.eta)
        x = yield from _midpoint_step(model, x, sigma, down)
        x = noised(x, noise, sigma, sigma_next, up * options.s_noise)
    return x


def _midpoint_step(model: Model, x: Tensor, sigma: float, sigma_next: float) -> Asks[Tensor]:
    denoised = yield from model(x, sigma)
    if sigma_next == 0:
        return denoised
    between = midway(sigma, sigma_next)
    middle = toward(x, denoised, between / sigma)
    denoised_middle = yield from model(middle, between)
    return x + slope(middle, denoised_middle, between) * (sigma_next - sigma)


def dpmpp_2s_ancestral(
    model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options
) -> Asks[Tensor]:
    """DPM-Solver++ 2S (Lu et al. 2022, arXiv:2211.01095, algorithm 1), ancestral."""
    for sigma, sigma_next in pairwise(sigmas):
        down, up = ancestral_step(sigma, sigma_next, options.eta)
        denoised = yield from model(x, sigma)
        if down > 0:
            between = midway(sigma, down)
            denoised = yield from model(toward(x, denoised, between / sigma), between)
        x = noised(toward(x, denoised, down / sigma), noise, sigma, sigma_next, up * options.s_noise)
    return x


def restart(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """Heun's method that climbs back by noise and repeats a part of the steps (Xu et al. 2023, arXiv:2306.14878,
    algorithm 1). Steps from pure noise are Euler's, and count as steps.
    """
    reached = sigmas[0]
    for sigma, sigma_next in _restarting(sigmas):
        climb = math.sqrt(max(0.0, sigma**2 - reached**2))
        x = noised(x, noise, reached, sigma, climb)
        if sigma > PURE_NOISE:
            x = toward(x, (yield from model(x, sigma)), sigma_next / sigma)
        else:
            x = yield from _heun_step(model, x, sigma, sigma_next)
        reached = sigma_next
    return x


def _restarting(sigmas: Sequence[float]) -> Iterator[Stretch]:
    """Yield the steps; of 20 steps or more, some repeat the stretch from sigma 2 to 0.1, once or twice.

    The rest of the steps then follows the schedule of Karras et al. between the same ends.
    """
    count = len(sigmas) - 1
    if count < 20:
        yield from pairwise(sigmas)
        return
    length, times = (count // 4, 2) if count >= 36 else (9, 1)
    lowest = min(sigma for sigma in sigmas if sigma > 0)
    base = [*bent(lowest, sigmas[0], count - length * times), 0.0]
    places = base[:-1]  # without 0: no noise leads up from there
    low, high = _nearest(places, _RESTART_LOW), _nearest(places, _RESTART_HIGH)
    for sigma, sigma_next in pairwise(base):
        yield sigma, sigma_next
        if sigma_next == low < high:
            for _ in range(times):
                yield from pairwise(bent(low, high, length + 1))


def _nearest(sigmas: Sequence[float], wanted: float) -> float:
    return min(sigmas, key=lambda sigma: abs(sigma - wanted))
