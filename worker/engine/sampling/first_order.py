"""Samplers of one model call a step without memory of earlier steps: Euler, Euler a, DDIM, DDIM CFG++, LCM."""

# ruff: noqa: ARG001 - all samplers have one signature
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from worker.engine.requests import Asks
from worker.engine.sampling.algebra import (
    Model,
    Noise,
    Options,
    PairModel,
    ancestral_step,
    churned,
    noised,
    slope,
    toward,
)


def euler(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """Euler's method on the probability flow (Karras et al. 2022, arXiv:2206.00364, algorithm 2, first order)."""
    for step, sigma_next in enumerate(sigmas[1:]):
        x, sigma = churned(x, sigmas, step, noise, options)
        denoised = yield from model(x, sigma)
        x = toward(x, denoised, sigma_next / sigma)
    return x


def euler_ancestral(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """Euler's method that steps below each sigma and adds noise up to it; in these coordinates DDIM too, with its `eta`
    (Song et al. 2020, arXiv:2010.02502).
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        down, up = ancestral_step(sigma, sigma_next, options.eta)
        x = noised(toward(x, denoised, down / sigma), noise, sigma, sigma_next, up)
    return x


def ddim_cfgpp(model: PairModel, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """DDIM whose noise is put back without guidance: CFG++ (Chung et al. 2024, arXiv:2406.08070, algorithm 2).

    The model's guidance is an interpolation there, at scales from 0 to 1.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised, unconditional = yield from model(x, sigma)
        down, up = ancestral_step(sigma, sigma_next, options.eta)
        x = noised(denoised + slope(x, unconditional, sigma) * down, noise, sigma, sigma_next, up)
    return x


def lcm(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469, algorithm 1; Luo et al. 2023,
    arXiv:2310.04378): the denoised latent gets new noise up to the next sigma.

    The boundary scalings c_skip and c_out of consistency models differ from 0 and 1 by less than 1e-5 at their first
    timestep, and are left out.
    """
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield from model(x, sigma)
        x = noised(denoised, noise, sigma, sigma_next, sigma_next)
    return x
