"""Noise levels of the timesteps that a checkpoint was trained on. Plain numbers, no tensors."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import mul
from typing import Final

_LAST_SHARE: Final = (
    4.8973451890853435e-08  # of the signal at the last timestep of a rescaled table, where 0 has no sigma
)
PURE_NOISE: Final = 1000.0  # above this sigma nothing of a latent of unit deviation is left
ALIGNED_SD1: Final = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_XL: Final = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


@dataclass(frozen=True)
class SigmaTable:
    """Sigma of each training timestep, rising: the noise's standard deviation beside a latent of scale 1."""

    values: tuple[float, ...]
    aligned: tuple[float, ...] = ALIGNED_SD1  # falling sigmas that suit this architecture in few steps

    @classmethod
    def of_betas(cls, betas: Sequence[float]) -> SigmaTable:
        """Return the table of a variance-preserving diffusion (Ho et al. 2020): sigma² = (1 - ā) / ā."""
        shares = accumulate((1 - beta for beta in betas), mul)  # ā: of the signal
        return cls(tuple(math.sqrt((1 - share) / share) for share in shares))

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> SigmaTable:
        """Return the table of Stable Diffusion: the betas' square roots rise evenly."""
        low, high = math.sqrt(start), math.sqrt(end)
        return cls.of_betas([(low + (high - low) * step / (steps - 1)) ** 2 for step in range(steps)])

    def at_zero_terminal_snr(self) -> SigmaTable:
        """Return the table rescaled so that its last timestep holds noise alone (Lin et al. 2023, arXiv:2305.08891,
        algorithm 1).

        Its sigma would be infinite; it is 4518.8, as in checkpoints' usual readers. A table with such an end stays.
        """
        if self.highest > PURE_NOISE:
            return self
        roots = [1 / math.hypot(1, sigma) for sigma in self.values]  # sqrt(ā)
        first, last = roots[0], roots[-1]
        shares = [max(((root - last) * first / (first - last)) ** 2, _LAST_SHARE) for root in roots]
        return replace(self, values=tuple(math.sqrt((1 - share) / share) for share in shares))

    @property
    def lowest(self) -> float:
        return self.values[0]

    @property
    def highest(self) -> float:
        return self.values[-1]

    def sigma(self, timestep: float) -> float:
        """Return the sigma of a timestep, which may lie between two: its logarithm is interpolated."""
        low = min(int(timestep), len(self.values) - 2)
        share = timestep - low
        return math.exp((1 - share) * math.log(self.values[low]) + share * math.log(self.values[low + 1]))

    def timestep(self, sigma: float) -> float:
        """Return the timestep of a sigma, the inverse of `sigma`; beyond the table: its end."""
        if sigma <= self.lowest:
            return 0.0
        if sigma >= self.highest:
            return float(len(self.values) - 1)
        high = bisect_left(self.values, sigma)
        below, above = math.log(self.values[high - 1]), math.log(self.values[high])
        return high - 1 + (math.log(sigma) - below) / (above - below)
