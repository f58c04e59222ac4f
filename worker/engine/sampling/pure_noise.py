"""Steps from pure noise, for schedules that begin so high, as with zero terminal SNR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Algorithm, Noise, Options, toward
from worker.engine.sigma_table import PURE_NOISE


def from_pure_noise(algorithm: Algorithm) -> Algorithm:
    """Return `algorithm` with Euler's method for every step that starts above PURE_NOISE.

    A step of higher order adds the change of the denoised latent to Euler's step, times the ratio of its sigmas or its
    length in their logarithm: from 4096 to 14 that is several times a picture. Euler's step is nearly exact there,
    because a latent denoised from noise alone hardly depends on it.
    """

    def walk(
        model: Callable[[Tensor, float], Asks[Any]], x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options
    ) -> Asks[Tensor]:
        while sigmas[0] > PURE_NOISE and len(sigmas) > 1 and sigmas[1] > 0:
            denoised = yield from model(x, sigmas[0])
            x, sigmas = toward(x, denoised, sigmas[1] / sigmas[0]), sigmas[1:]
        return (yield from algorithm(model, x, sigmas, noise, options)) if len(sigmas) > 1 else x

    return walk
