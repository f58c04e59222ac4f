"""Samplers that add noise: for pictures of one normal distribution, which has a formula, they end in its deviation.

Each sampler is linear there, so its end is a sum of its start and of every noise that it drew, with known weights.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shared.params.groups import Sampling
from shared.params.samplers import AUTOMATIC
from shared.params.samplers import SAMPLERS as FACTS
from tests.support.walks import finished
from worker.engine.sampling import schedules
from worker.engine.sampling.registry import SAMPLERS, plan
from worker.engine.sigma_table import SigmaTable

DEVIATION = 0.6
SD1 = SigmaTable.scaled_linear()
TABLES = {"usual": SD1, "from pure noise": SD1.at_zero_terminal_snr()}
STOCHASTIC = [
    name for name, facts in FACTS.items() if (facts.is_ancestral or "eta" in facts.options) and not facts.is_adaptive
]


def model(name: str):
    """A model that denoises to the mean; for LCM, whose checkpoints are trained for it, to the end of the flow."""

    def denoised(x: Tensor, sigma: float):
        yield from ()
        share = DEVIATION / math.hypot(DEVIATION, sigma)
        found = x * share if name == "LCM" else x * share**2
        return (found, found) if FACTS[name].needs_unconditional else found

    return denoised


def deviation(name: str, sigmas: list[float]) -> float:
    """Return the deviation that `name` ends in along `sigmas`, beside the right one."""
    options = Sampling(eta=1.0) if "eta" in FACTS[name].options else Sampling()
    queries = plan(name, sigmas, options).queries
    start, *units = torch.eye(1 + len(queries), dtype=torch.float64)
    draws = iter(units)
    weights = finished(SAMPLERS[name](model(name), start * sigmas[0], sigmas, lambda *_: next(draws), options))
    alike = torch.eye(1 + len(queries), dtype=torch.float64)
    if FACTS[name].uses_brownian:  # increments of one motion share what they overlap in
        high, low = torch.tensor(queries, dtype=torch.float64).T
        overlap = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0)
        alike[1:, 1:] = overlap / ((high - low)[:, None] * (high - low)).sqrt()
    return math.sqrt(float(weights @ alike @ weights)) / math.hypot(DEVIATION, sigmas[-1])


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_deviation_comes_closer_the_more_steps_there_are(name: str, table: str) -> None:
    for schedule in FACTS[name].schedules[1:] or (AUTOMATIC,):
        few, many = (
            abs(
                math.log(deviation(name, schedules.sigmas(TABLES[table], sampler=name, schedule=schedule, steps=steps)))
            )
            for steps in (20, 80)
        )
        assert many < 0.15, schedule
        assert many < max(few * 0.6, 0.003), schedule
