"""What a network predicts, converted here to one coordinate system: x = x0 + sigma * noise.

Samplers, pipelines and guidance see the denoised latent x0 alone.
"""

from __future__ import annotations

import math
from enum import Enum

from torch import Tensor


class Prediction(Enum):
    """The target of a network's training: the noise, or the velocity (Salimans and Ho 2022, arXiv:2202.00512)."""

    NOISE = "noise"
    VELOCITY = "velocity"

    def scale(self, sigma: float) -> float:
        """Return by how much a latent at `sigma` is larger than the network sees it."""
        return math.hypot(1, sigma)

    def scaled(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return `x` [rows, channels, h, w] as the network sees it: at unit variance."""
        return x * (1 + sigma**2).rsqrt()

    def denoised(self, x: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        """Return the denoised latents [rows, channels, h, w] by the network's output for `scaled` ones."""
        if self is Prediction.NOISE:
            return x - output * sigma
        scale = (1 + sigma**2).rsqrt()
        return x * scale**2 - output * (sigma * scale)

    def still(self, x: Tensor, sigma: float) -> Tensor:
        """Return a latent as it is denoised if the network predicts zero."""
        return x if self is Prediction.NOISE else x / (1 + sigma**2)
