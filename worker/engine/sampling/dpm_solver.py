"""DPM-Solver in single steps of first to third order (Lu et al. 2022, arXiv:2206.00927): DPM fast and DPM adaptive.

Both take only the ends of a schedule and walk between them in log sigma; neither goes to sigma 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from shared.errors import RenderError
from worker.engine.requests import Asks, Read, Work
from worker.engine.sampling.algebra import Model, Noise, Options, ancestral_step, noised, slope, toward
from worker.engine.sigma_table import PURE_NOISE
from worker.engine.transfers import fetched

_RELATIVE: Final = 0.05  # tolerances of an adaptive step: share of a value, and the least difference that counts
_ABSOLUTE: Final = 0.0078
_FIRST_STEP: Final = 0.05  # in log sigma
_ARRIVED: Final = 1e-5  # in log sigma from the end: near enough
_ACCEPTED: Final = 0.81  # a step is accepted if the next one may be at least this much of its length
_ORDER: Final = 3
_ENTRY: Final = 14.6  # sigma at which adaptive steps begin below pure noise
_MOST_TRIALS: Final = 1000


def dpm_fast(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """DPM-Solver-fast: steps even in log sigma, of third order except the last, that take a given number of calls."""
    calls, (highest, lowest) = len(sigmas) - 1, _ends(sigmas)
    if lowest == highest:
        return (yield from model(x, highest))
    orders = _orders(calls)
    stops = [highest * (lowest / highest) ** (step / len(orders)) for step in range(len(orders) + 1)]
    for (sigma, sigma_next), order in zip(pairwise(stops), orders, strict=True):
        down, up = _step(sigma, sigma_next, lowest, options.eta)
        *_, x = yield from _solutions(model, x, sigma, down, order)
        x = noised(x, noise, sigma, sigma_next, up * options.s_noise)
    return x


def dpm_adaptive(model: Model, x: Tensor, sigmas: Sequence[float], noise: Noise, options: Options) -> Asks[Tensor]:
    """DPM-Solver-23: steps of third order, each as long as its difference to one of second order allows.

    That difference is read from the card. The number of steps depends on it, and so on its rounding. Noise is drawn off
    the engine's thread, because the amount is not known ahead. From pure noise the first step is Euler's, to where
    other checkpoints begin: a tolerance that is a share of the latent is too wide above.
    """
    sigma, lowest = _ends(sigmas)
    if lowest == sigma:
        return (yield from model(x, sigma))
    if sigma > PURE_NOISE and lowest < _ENTRY:
        x, sigma = toward(x, (yield from model(x, sigma)), _ENTRY / sigma), _ENTRY
    length, low_before = _FIRST_STEP, x
    for _ in range(_MOST_TRIALS):
        sigma_next = max(lowest, sigma * math.exp(-length))
        down, up = _step(sigma, sigma_next, lowest, options.eta)
        low, high = yield from _solutions(model, x, sigma, down, _ORDER)
        error = yield Read(partial(_number, _difference(low, high, low_before)))
        factor = _lengthening(error, 1.5 if options.eta else _ORDER)
        length *= factor
        if factor < _ACCEPTED:
            continue
        x, low_before = high, low
        if up:
            x = x + (yield Work(partial(noise, sigma, sigma_next))) * up
        sigma = sigma_next
        if math.log(sigma / lowest) <= _ARRIVED:
            return x
    raise RenderError(f"DPM adaptive found no steps short enough for this picture in {_MOST_TRIALS} trials")


def _solutions(model: Model, x: Tensor, sigma: float, sigma_next: float, order: int) -> Asks[tuple[Tensor, ...]]:
    """Return `x` at `sigma_next` by a step of `order`, from as many calls; for the third, first that of the second."""
    step, fall = math.log(sigma / sigma_next), sigma - sigma_next
    start = slope(x, (yield from model(x, sigma)), sigma)
    straight = x - start * fall
    if order == 1:
        return (straight,)
    share = 1 / order  # of the step, where the second call stands
    first = sigma * math.exp(-share * step)
    x_first = x - start * (sigma - first)
    change = slope(x_first, (yield from model(x_first, first)), first) - start
    second_order = straight - change * (fall / (2 * share))
    if order == 2:
        return (second_order,)
    second = sigma * math.exp(-2 * share * step)
    x_second = x - start * (sigma - second) - change * (2 * _bend(sigma, second))
    later_change = slope(x_second, (yield from model(x_second, second)), second) - start
    return second_order, straight - later_change * (_bend(sigma, sigma_next) / (2 * share))


def _bend(sigma: float, sigma_next: float) -> float:
    """Return sigma_next * ((e^h - 1) / h - 1) for the step h between the two in log sigma."""
    return (sigma - sigma_next) / math.log(sigma / sigma_next) - sigma_next


def _step(sigma: float, sigma_next: float, lowest: float, eta: float) -> tuple[float, float]:
    """Return the sigma to step down to, never below `lowest`, and the deviation of the noise up to `sigma_next`."""
    if not eta:
        return sigma_next, 0.0
    down = max(lowest, ancestral_step(sigma, sigma_next, eta)[0])
    return down, math.sqrt(max(0.0, sigma_next**2 - down**2))


def _orders(calls: int) -> list[int]:
    """Return the orders of steps that take `calls` in all, the last ones lower."""
    if calls % 3 == 0:
        return [3] * (calls // 3 - 1) + [2, 1]
    return [3] * (calls // 3) + [calls % 3]


def _difference(low: Tensor, high: Tensor, low_before: Tensor) -> Tensor:
    """Return the root mean square of the difference, in units of the tolerance at each place."""
    tolerated = (torch.maximum(low.abs(), low_before.abs()) * _RELATIVE).clamp(min=_ABSOLUTE)
    difference: Tensor = torch.linalg.vector_norm((low - high) / tolerated)
    return difference / math.sqrt(low.numel())


def _number(value: Tensor) -> float:
    return float(fetched(value))


def _lengthening(error: float, order: float) -> float:
    """Return how much longer the next step may be, by an integral controller. Raises RenderError for NaN."""
    if not math.isfinite(error):
        raise RenderError("DPM adaptive cannot go on: the picture's numbers are no longer finite")
    return 1 + math.atan((1 / (error + 1e-8)) ** (1 / order) - 1)


def _ends(sigmas: Sequence[float]) -> tuple[float, float]:
    return sigmas[0], min(sigma for sigma in sigmas if sigma > 0)
