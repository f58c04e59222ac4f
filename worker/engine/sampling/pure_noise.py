"""The way down from pure noise: the first step where a schedule begins so high, as with zero terminal SNR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from torch import Tensor

from worker.engine.requests import Asks
from worker.engine.sampling.algebra import Algorithm, Noise, Options, toward

PURE_NOISE: Final = 1000.0  # above this sigma a latent, of about unit deviation, has left no trace


def from_pure_noise(algorithm: Algorithm) -> Algorithm:
    """Return `algorithm` with Euler's method for every step that starts above PURE_NOISE.

    What a step of higher order adds to Euler's is the change of what is denoised, times the ratio of the step's sigmas
    or the step in their logarithm: from 4096 to 14 that is a multiple of a picture. Euler's step there misses little,
    since what is denoised of noise alone hardly depends on it.
    """

    def walk(
        model: Callable[[Tensor, float], Asks[Any]], x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options
    ) -> Asks[Tensor]:
        while sigmas[0] > PURE_NOISE and len(sigmas) > 1 and sigmas[1] > 0:
            denoised = yield from model(x, sigmas[0])
            x, sigmas = toward(x, denoised, sigmas[1] / sigmas[0]), sigmas[1:]
        return (yield from algorithm(model, x, sigmas, noise, options))

    return walk
