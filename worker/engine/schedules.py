"""Noise levels: the table that a checkpoint was trained on, and the ways to walk down it. Plain numbers, no tensors."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import mul
from typing import Final

from scipy.special import betaincinv

from shared.errors import RenderError
from shared.params.render import Sampling
from shared.params.samplers import SAMPLERS, timesteps

_PLAIN: Final = Sampling()
_KARRAS_RHO: Final = 7.0
_BETA_SHAPE: Final = 0.6  # both parameters of the beta distribution
_CONSISTENCY_STRIDE: Final = 20  # latent consistency models are distilled on every 20th timestep: 19, 39 … 999
_LAST_SHARE: Final = 4.8973451890853435e-08  # of the signal at the last timestep of a rescaled table: 0 has no sigma

ALIGNED_SD1: Final = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_XL: Final = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


@dataclass(frozen=True)
class SigmaTable:
    """Sigma of each training timestep, rising: the noise's standard deviation beside a latent of scale 1."""

    values: tuple[float, ...]
    aligned: tuple[float, ...] = ALIGNED_SD1  # the falling sigmas that suit checkpoints of this kind in few steps

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

    def at_zero_terminal_snr(self) -> SigmaTable:
        """Return the table rescaled so that its last timestep holds noise alone (Lin et al. 2023, arXiv:2305.08891,
        algorithm 1).

        Its sigma would be infinite; it is 4518.8, as in checkpoints' usual readers.
        """
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


def sigmas(  # noqa: PLR0913 - all by name
    table: SigmaTable, *, sampler: str, schedule: str, steps: int, options: Sampling = _PLAIN, kept: int | None = None
) -> list[float]:
    """Return the falling sigmas that `sampler` walks down in `steps`; each but the last is where a step starts.

    With `kept`, only the last part of the way, at least one step: what follows when a picture that is there already is
    noised as far as `kept` steps lead. Raises RenderError where sigma_min does not lie below sigma_max.
    """
    facts = SAMPLERS[sampler]
    if facts.spaces_timesteps:
        return _TIMESTEP_WALKS[facts.automatic](table, steps, kept)
    asked = options.discard_next_to_last_sigma
    discards = facts.discards_next_to_last_sigma if asked is None else asked
    found = SCHEDULES[facts.schedule(schedule)](table, steps + discards, options)
    if discards and len(found) > 2:
        found = [*found[:-2], found[-1]]
    if kept is None:
        return _falling(found)
    start = min(steps - kept - 1, len(found) - kept - 2)  # a schedule may have fewer sigmas than were asked for
    return _falling(found[max(0, start) :])


def uniform(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:  # noqa: ARG001
    """Timesteps evenly from the last to the first, then 0."""
    last = len(table.values) - 1
    return [*(table.sigma(last * (1 - share)) for share in _shares(steps)), 0.0]


def karras(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:
    """Karras et al. 2022 (arXiv:2206.00364), equation 5: evenly in sigma^(1/rho)."""
    return [*bent(*_bounds(table, options), steps, options.rho or _KARRAS_RHO), 0.0]


def bent(low: float, high: float, count: int, rho: float = _KARRAS_RHO) -> list[float]:
    """Return `count` sigmas from `high` to `low`, evenly in sigma^(1/rho)."""
    ratio = (low / high) ** (1 / rho)
    return [max(low, high * (1 - share + share * ratio) ** rho) for share in _shares(count)]


def exponential(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:
    """Evenly in the logarithm of sigma."""
    low, high = _bounds(table, options)
    return [*(high * (low / high) ** share for share in _shares(steps)), 0.0]


def polyexponential(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:
    """By a polynomial in the logarithm of sigma; with rho 1, which is usual, as `exponential`."""
    low, high = _bounds(table, options)
    return [*(low * (high / low) ** ((1 - share) ** (options.rho or 1)) for share in _shares(steps)), 0.0]


def sgm_uniform(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:
    """Timesteps evenly, as Stability's generative models space them: one more than needed, the lowest left out."""
    return [*_between_timesteps(table, steps + 1, options)[:-1], 0.0]


def normal(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:
    """Timesteps evenly, from that of the highest sigma to that of the lowest."""
    return [*_between_timesteps(table, steps, options), 0.0]


def kl_optimal(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:
    """Evenly in the arc tangent of sigma (Sabour et al. 2024, arXiv:2404.14507, appendix). Ends at the lowest sigma."""
    low, high = (math.atan(sigma) for sigma in _bounds(table, options))
    return [math.tan(share * low + (1 - share) * high) for share in _shares(steps + 1)]


def align_your_steps(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:  # noqa: ARG001
    """The sigmas that Sabour et al. 2024 (arXiv:2404.14507) found best in ten steps; others between them."""
    last = len(table.aligned) - 1
    known = SigmaTable(table.aligned[::-1])  # `sigma` interpolates logarithms
    return [*(known.sigma(last * (1 - share)) for share in _shares(steps)), 0.0]


def simple(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:  # noqa: ARG001
    """Every (1000 / steps)th sigma of the table, from the highest on."""
    count = len(table.values)
    return [*(table.values[-(1 + step * count // steps)] for step in range(steps)), 0.0]


def ddim(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:  # noqa: ARG001
    """Every (1000 // steps)th sigma of the table from the second on: their number is not always `steps`."""
    return [*reversed(table.values[1 :: max(len(table.values) // steps, 1)]), 0.0]


def beta(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:
    """By the quantiles of a beta distribution (Lee et al. 2024, arXiv:2407.12173), which is dense at both ends."""
    low, high = _bounds(table, options)
    quantiles = (float(betaincinv(_BETA_SHAPE, _BETA_SHAPE, 1 - share)) for share in _shares(steps))
    return [*(low + (high - low) * quantile for quantile in quantiles), 0.0]


def ends(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:  # noqa: ARG001
    """As `uniform`, but one step too leads to the lowest sigma: for samplers that take only the ends of a schedule."""
    return uniform(table, steps) if steps > 1 else [table.highest, table.lowest]


def consistency(table: SigmaTable, steps: int, options: Sampling = _PLAIN) -> list[float]:  # noqa: ARG001
    """Evenly over the timesteps that latent consistency models know (Luo et al. 2023, arXiv:2310.04378), then 0.

    In more steps than these, some lie between.
    """
    known = SigmaTable(table.values[_CONSISTENCY_STRIDE - 1 :: _CONSISTENCY_STRIDE] or table.values)
    last = len(known.values) - 1
    places = [last * (1 - share) for share in _shares(steps)]
    return [*(known.sigma(round(place) if steps <= last else place) for place in places), 0.0]


def spaced_timesteps(table: SigmaTable, steps: int, kept: int | None) -> list[float]:
    """Every (1000 // steps)th timestep from 1 on, downwards; the number of steps is therefore not always `steps`."""
    return [table.sigma(timestep) for timestep in reversed(_kept_timesteps(table, steps, kept))]


def even_timesteps(table: SigmaTable, steps: int, kept: int | None) -> list[float]:
    """As many steps as there are `spaced_timesteps`, evenly from the last timestep to the first."""
    known = _kept_timesteps(table, steps, kept)
    start = len(table.values) - 1 if kept is None else known[-1]
    return [table.sigma(start * (1 - share)) for share in _shares(len(known) + 1)]


SCHEDULES: Final[dict[str, Callable[[SigmaTable, int, Sampling], list[float]]]] = {
    "uniform": uniform,
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "sgm_uniform": sgm_uniform,
    "kl_optimal": kl_optimal,
    "align_your_steps": align_your_steps,
    "simple": simple,
    "normal": normal,
    "ddim": ddim,
    "beta": beta,
    "ends": ends,
    "consistency": consistency,
}
_TIMESTEP_WALKS: Final = {"timesteps": spaced_timesteps, "even_timesteps": even_timesteps}


def _kept_timesteps(table: SigmaTable, steps: int, kept: int | None) -> list[int]:
    """Return the timesteps that are walked, rising; at least two, between which there is a step."""
    known = timesteps(steps, len(table.values))
    return known if kept is None else known[: max(kept, 2)]


def _between_timesteps(table: SigmaTable, count: int, options: Sampling) -> list[float]:
    low, high = (table.timestep(sigma) for sigma in _bounds(table, options))
    return [table.sigma(high + share * (low - high)) for share in _shares(count)]


def _bounds(table: SigmaTable, options: Sampling) -> tuple[float, float]:
    """Return the lowest and the highest sigma that are wanted."""
    low, high = options.sigma_min or table.lowest, options.sigma_max or table.highest
    if low >= high:
        raise RenderError(
            f"sigma_min {low:g} does not lie below sigma_max {high:g}; "
            f"this checkpoint's own are {table.lowest:g} and {table.highest:g}"
        )
    return low, high


def _shares(count: int) -> list[float]:
    """Return `count` numbers evenly from 0 to 1; a single one is 0."""
    return [step / (count - 1) for step in range(count)] if count > 1 else [0.0]


def _falling(found: Sequence[float]) -> list[float]:
    """Return the sigmas without those that repeat the one before: there is no step between them."""
    return [found[0], *(after for before, after in pairwise(found) if after < before)]
