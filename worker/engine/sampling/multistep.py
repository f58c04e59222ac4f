"""Samplers of one model call a step that remember the calls before: LMS, PLMS, DPM++ 2M."""

# ruff: noqa: ARG001 - all samplers have one signature
from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from torch import Tensor

from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Model, Noise, Options, slope, toward

_ORDER: Final = 4
_LARGEST_WEIGHTS: Final = 10_000.0  # times the step; 150 steps of the exponential schedule need 4,900
_ADAMS_BASHFORTH: Final = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""By how many slopes are known, the weight of each, the latest first."""


def lms(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """Adams and Bashforth's method of fourth order on the probability flow, over steps of any length in sigma.

    A step that is very long beside those before takes fewer of the slopes: the others would only add their rounding.
    """
    slopes: deque[Tensor] = deque(maxlen=_ORDER)  # the latest first
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = yield from model(x, sigma)
        slopes.appendleft(slope(x, denoised, sigma))
        known = sigmas[max(0, step - _ORDER + 1) : step + 1][::-1]
        weights = _lagrange_integrals(known, sigma_next)
        while sum(map(abs, weights)) > _LARGEST_WEIGHTS * (sigma - sigma_next):
            known = known[:-1]
            weights = _lagrange_integrals(known, sigma_next)
        x = x + _weighed(weights, list(slopes)[: len(weights)])
    return x


def plms(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778): Adams and Bashforth's method over even timesteps.

    Its first step takes a second call, at the step's end.
    """
    slopes: deque[Tensor] = deque(maxlen=_ORDER)  # the latest first
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        slopes.appendleft(slope(x, denoised, sigma))
        direction = _weighed(_ADAMS_BASHFORTH[len(slopes) - 1], slopes)
        if len(slopes) == 1:
            end = x + direction * (sigma_next - sigma)
            denoised_end = yield from model(end, sigma_next)
            direction = (direction + slope(end, denoised_end, sigma_next)) / 2
        x = x + direction * (sigma_next - sigma)
    return x


def dpmpp_2m(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
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
        x = toward(x, target, sigma_next / sigma)
        previous, step_before = denoised, step
    return x


def _weighed(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total = slopes[0] * weights[0]
    for weight, one in zip(weights[1:], list(slopes)[1:], strict=True):
        total = total + one * weight
    return total


def _lagrange_integrals(known: Sequence[float], end: float) -> list[float]:
    """Return, for each of up to four sigmas, the integral of its Lagrange polynomial from the first of them to `end`.

    Two points of Gauss and Legendre's are exact for polynomials up to the third degree.
    """
    middle, half = (known[0] + end) / 2, (end - known[0]) / 2
    points = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
    return [half * sum(_lagrange(known, node, point) for point in points) for node in known]


def _lagrange(known: Sequence[float], node: float, point: float) -> float:
    return math.prod((point - other) / (node - other) for other in known if other != node)
