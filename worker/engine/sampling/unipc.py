"""UniPC: predictor and corrector of any order that share their calls (Zhao et al. 2023, arXiv:2302.04867)."""

# ruff: noqa: ARG001 - all samplers have one signature
from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Model, Noise, Options, toward

_ORDER: Final = 3

Known = list[tuple[Tensor, float]]  # denoised latents and their sigmas, the latest first


def unipc(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """UniPC-3 in its variant B1(h) = h, predicting the latent; of lower order in the first and last steps.

    Each step is predicted from earlier denoised latents, then corrected by the one at its end, which is the start of
    the next step: so a step takes one call. The last is not corrected.
    """
    known: Known = []
    steps, previous, order = len(sigmas) - 1, x, 0
    for step, (sigma, sigma_next) in enumerate(pairwise(sigmas), start=1):
        denoised = yield from model(x, sigma)
        if known:
            x = _corrected(previous, known[:order], denoised, sigma)
        known = [(denoised, sigma), *known[: _ORDER - 1]]
        order = min(_ORDER, step, steps + 1 - step)
        previous, x = x, _predicted(x, known[:order], sigma_next)
    return x


def _predicted(x: Tensor, known: Known, sigma_next: float) -> Tensor:
    """Return `x`, which stands where the latest of `known` was denoised, at `sigma_next`: UniP of order len(known)."""
    (denoised, sigma), *earlier = known
    step = math.log(sigma / sigma_next)
    places = _places(known, step)
    weights = [0.5] if len(earlier) == 1 else _weights(places, step)
    return toward(x, denoised, sigma_next / sigma) + _sum(weights, _slopes(known, places), step)


def _corrected(x: Tensor, known: Known, denoised_next: Tensor, sigma_next: float) -> Tensor:
    """Return `x` at `sigma_next` corrected by the latent that is denoised there: UniC of order len(known)."""
    denoised, sigma = known[0]
    step = math.log(sigma / sigma_next)
    places = [*_places(known, step), 1.0]
    weights = [0.5] if len(known) == 1 else _weights(places, step)
    slopes = [*_slopes(known, places), denoised_next - denoised]
    return toward(x, denoised, sigma_next / sigma) + _sum(weights, slopes, step)


def _places(known: Known, step: float) -> list[float]:
    """Return the places of the earlier denoised latents, in steps of log sigma from the latest; negative."""
    sigma = known[0][1]
    return [math.log(sigma / earlier) / step for _, earlier in known[1:]]


def _slopes(known: Known, places: Sequence[float]) -> list[Tensor]:
    denoised = known[0][0]
    return [(earlier - denoised) / place for (earlier, _), place in zip(known[1:], places, strict=False)]


def _weights(places: Sequence[float], step: float) -> list[float]:
    """Return the weights of the slopes at `places` that make the step exact for polynomials: theorem 3.1."""
    if not places:
        return []
    powers = np.array([[place**power for place in places] for power in range(len(places))])
    weights: NDArray[np.float64] = np.linalg.solve(powers, _moments(len(places), -step))
    return [float(weight) for weight in weights]


def _moments(count: int, h: float) -> list[float]:
    """Return n! phi_(n+1)(h) h / B(h) for n = 1 … count, where B(h) = h; phi_1 = (e^h - 1) / h."""
    moments, phi = [], math.expm1(h) / h - 1
    for power in range(1, count + 1):
        moments.append(phi * math.factorial(power) / h)
        phi = phi / h - 1 / math.factorial(power + 1)
    return moments


def _sum(weights: Sequence[float], slopes: Sequence[Tensor], step: float) -> Tensor | float:
    """Return -B(h) times the weighed slopes, B(h) = h = -step; 0 if there are none."""
    return sum((slope * (weight * step) for weight, slope in zip(weights, slopes, strict=True)), start=0.0)
