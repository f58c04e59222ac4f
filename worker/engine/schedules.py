"""Noise levels: the table that a checkpoint was trained on, and the ways to walk down it. Plain numbers, no tensors."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Final

from shared.params import RenderParams
from shared.samplers import SAMPLERS

KARRAS_RHO: Final = 7.0


@dataclass(frozen=True)
class SigmaTable:
    """Sigma of each training timestep, rising: the noise's standard deviation beside a latent of scale 1."""

    values: tuple[float, ...]

    @classmethod
    def of_betas(cls, betas: Sequence[float]) -> SigmaTable:
        """Return the table of a variance-preserving diffusion (Ho et al. 2020): sigma² = (1 - ā) / ā."""
        kept = accumulate((1 - beta for beta in betas), mul)
        return cls(tuple(math.sqrt((1 - share) / share) for share in kept))

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, steps: int = 1000) -> SigmaTable:
        """Return the table of Stable Diffusion: the betas' square roots rise evenly."""
        low, high = math.sqrt(start), math.sqrt(end)
        return cls.of_betas([(low + (high - low) * step / (steps - 1)) ** 2 for step in range(steps)])

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


def uniform(table: SigmaTable, steps: int) -> list[float]:
    """Timesteps evenly from the last to the first, then 0: steps + 1 sigmas, as all schedules but `ddim`."""
    last = len(table.values) - 1
    timesteps = [last * (1 - step / (steps - 1)) for step in range(steps)] if steps > 1 else [last]
    return [*(table.sigma(timestep) for timestep in timesteps), 0.0]


def karras(table: SigmaTable, steps: int) -> list[float]:
    """Karras et al. 2022 (arXiv:2206.00364), equation 5: evenly in sigma^(1/7)."""
    low, high = table.lowest ** (1 / KARRAS_RHO), table.highest ** (1 / KARRAS_RHO)
    shares = [step / (steps - 1) for step in range(steps)] if steps > 1 else [0.0]
    return [*((high + share * (low - high)) ** KARRAS_RHO for share in shares), 0.0]


def ddim(table: SigmaTable, steps: int) -> list[float]:
    """Every (1000 // steps)th timestep from 1 on, downwards; each sigma but the last is a model call.

    The number of calls is therefore not always `steps`: 19 for 20, 30 for 30. A single step goes from the last timestep
    to 1.
    """
    count = len(table.values)
    timesteps = [min(timestep + 1, count - 1) for timestep in range(0, count, max(1, count // steps))]
    return [table.sigma(timestep) for timestep in reversed(timesteps if steps > 1 else [1, count - 1])]


SCHEDULES: Final = {"uniform": uniform, "karras": karras, "ddim": ddim}


def sigmas(table: SigmaTable, params: RenderParams) -> list[float]:
    """Return the falling sigmas that a render of `params` walks down."""
    return SCHEDULES[SAMPLERS[params.sampler].schedule(params.schedule)](table, params.steps)
