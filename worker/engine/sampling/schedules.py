"""Schedules: falling sigmas out of the table that a checkpoint was trained on. Plain numbers, no tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from scipy.special import betaincinv

from shared.errors import RenderError
from shared.params.groups import Sampling
from shared.params.samplers import SAMPLERS, timesteps
from worker.engine.sigma_table import PURE_NOISE, SigmaTable

_PLAIN: Final = Sampling()
_KARRAS_RHO: Final = 7.0
_BETA_SHAPE: Final = 0.6  # both parameters of the beta distribution
_CONSISTENCY_STRIDE: Final = 20  # latent consistency models are distilled on every 20th timestep: 19, 39 … 999


def sigmas(  # noqa: PLR0913 - all by name
    table: SigmaTable,
    *,
    sampler: str,
    schedule: str,
    steps: int,
    options: Sampling = _PLAIN,
    run_last: int | None = None,
) -> list[float]:
    """Return the falling sigmas of `sampler` in `steps` steps; each but the last is where a step starts.

    With `run_last`, only its end, at least one step, for img2img: the steps after a picture got the noise that
    `run_last` steps remove. Raises RenderError if sigma_min does not lie below sigma_max.
    """
    facts = SAMPLERS[sampler]
    if facts.spaces_timesteps:
        return _TIMESTEP_SCHEDULES[facts.automatic](table, steps, run_last)
    chosen = options.discard_next_to_last_sigma
    discards = facts.discards_next_to_last_sigma if chosen is None else chosen
    found = SCHEDULES[facts.schedule(schedule)](table, steps + discards, options)
    if discards and len(found) > 2:
        found = [*found[:-2], found[-1]]
    if run_last is None:
        return _falling(found)
    start = min(steps - run_last - 1, len(found) - run_last - 2)  # a schedule may have fewer sigmas than steps
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
    """The sigmas that Sabour et al. 2024 (arXiv:2404.14507) found best in ten steps; others between them.

    They are those of an architecture, and begin at 14.6 even where a checkpoint begins higher.
    """
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
    """By the quantiles of a beta distribution (Lee et al. 2024, arXiv:2407.12173), which is dense at both ends.

    Quantiles of sigmas, as people know it. From pure noise they are of timesteps, as in the paper: otherwise nearly all
    steps would lie where nothing of a picture is left.
    """
    low, high = _bounds(table, options)
    quantiles = [float(betaincinv(_BETA_SHAPE, _BETA_SHAPE, 1 - share)) for share in _shares(steps)]
    if high > PURE_NOISE:
        start, end = table.timestep(low), table.timestep(high)
        return [*(table.sigma(start + (end - start) * quantile) for quantile in quantiles), 0.0]
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


def spaced_timesteps(table: SigmaTable, steps: int, run_last: int | None) -> list[float]:
    """Every (1000 // steps)th timestep from 1 on, downwards; the number of steps is therefore not always `steps`."""
    return [table.sigma(timestep) for timestep in reversed(_timesteps(table, steps, run_last))]


def even_timesteps(table: SigmaTable, steps: int, run_last: int | None) -> list[float]:
    """As many steps as there are `spaced_timesteps`, evenly from the last timestep to the first."""
    known = _timesteps(table, steps, run_last)
    start = len(table.values) - 1 if run_last is None else known[-1]
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
_TIMESTEP_SCHEDULES: Final = {"timesteps": spaced_timesteps, "even_timesteps": even_timesteps}


def _timesteps(table: SigmaTable, steps: int, run_last: int | None) -> list[int]:
    """Return the timesteps of the steps, rising; at least two."""
    known = timesteps(steps, len(table.values))
    return known if run_last is None else known[: max(run_last, 2)]


def _between_timesteps(table: SigmaTable, count: int, options: Sampling) -> list[float]:
    low, high = (table.timestep(sigma) for sigma in _bounds(table, options))
    return [table.sigma(high + share * (low - high)) for share in _shares(count)]


def _bounds(table: SigmaTable, options: Sampling) -> tuple[float, float]:
    """Return the lowest and the highest sigma, from the options or the table."""
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
