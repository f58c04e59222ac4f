"""The way down from a sigma of 4096, where zero terminal SNR begins, against a fine integration in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from shared.params.groups import Sampling
from shared.params.samplers import SAMPLERS as FACTS
from worker.engine.requests import Work
from worker.engine.sampling.registry import SAMPLERS, plan

MEANS = torch.tensor([-1.5, 0.2, 1.2], dtype=torch.float64)
WEIGHTS = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
DEVIATION = 0.3
FIRST, HIGHEST, LOWEST = 4096.0, 14.6, 0.03
ENDS_AT_UNIT_VARIANCE = {"DDIM", "DDIM CFG++", "PLMS", "UniPC"}
STOCHASTIC = {"LCM"}  # noised again at each step, whatever eta is: no integration of the flow


def denoised(x: Tensor, sigma: float) -> Tensor:
    """The denoised mean of a mixture of three normal distributions, by its formula."""
    variance = DEVIATION**2 + sigma**2
    distance = x[..., None] - MEANS
    share = torch.softmax(torch.log(WEIGHTS) - distance**2 / (2 * variance), -1)
    return (share * (MEANS + distance * (DEVIATION**2 / variance))).sum(-1)


def finely(x: Tensor, sigma: float, end: float, steps: int = 4000) -> Tensor:
    """Return `x` at `end` by steps of second order, even in log sigma, that predict what is denoised."""
    for one, other in pairwise(sigma * (end / sigma) ** (step / steps) for step in range(steps + 1)):
        start = denoised(x, one)
        mean = (start + denoised(start + (x - start) * (other / one), other)) / 2
        x = mean + (x - mean) * (other / one)
    return x


def walked(name: str, x: Tensor, sigmas: list[float]) -> Tensor:
    def model(x, sigma):
        yield from ()
        found = denoised(x, sigma)
        return (found, found) if FACTS[name].needs_unconditional else found

    options = Sampling(eta=0.0) if "eta" in FACTS[name].options else Sampling()
    walk = SAMPLERS[name](model, x, sigmas, lambda *_: torch.zeros_like(x), options)
    answer = None
    while True:
        try:
            asked = walk.send(answer)
        except StopIteration as end:
            return end.value
        answer = asked.function() if isinstance(asked, Work) else None


@pytest.fixture(scope="module")
def start() -> Tensor:
    return torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * FIRST


@pytest.fixture(scope="module")
def right(start: Tensor) -> Tensor:
    return finely(start, FIRST, LOWEST)


@pytest.mark.parametrize("name", [name for name in FACTS if name not in STOCHASTIC])
@pytest.mark.parametrize("schedule", ["of the checkpoint", "Karras"])
def test_every_sampler_comes_down_from_pure_noise(name: str, schedule: str, start: Tensor, right: Tensor) -> None:
    count = 18 if name == "Restart" else 32  # from 20 on it climbs by noise, which is none here
    even = [HIGHEST * (LOWEST / HIGHEST) ** (step / (count - 1)) for step in range(count)]
    ends = FIRST ** (1 / 7), LOWEST ** (1 / 7)
    bent = [(ends[0] + step / count * (ends[1] - ends[0])) ** 7 for step in range(count + 1)]
    sigmas = [FIRST, *even] if schedule == "of the checkpoint" else bent
    expected = right / math.hypot(1, LOWEST) if name in ENDS_AT_UNIT_VARIANCE else right
    first_order = FACTS[name].order == 1 and name.startswith(("Euler", "DDIM"))
    bound = 0.15 if first_order else 0.02 if schedule == "of the checkpoint" else 0.06
    if name == "Restart":
        bound = 0.2  # of fewer steps; 0.33 with a first step of second order
    assert float((walked(name, start, sigmas) - expected).abs().mean()) < bound


@pytest.mark.parametrize("name", ["Heun", "DPM2"])
def test_the_order_of_a_sampler_is_kept(name: str, start: Tensor, right: Tensor) -> None:
    def error(count: int) -> float:
        even = [HIGHEST * (LOWEST / HIGHEST) ** (step / (count - 1)) for step in range(count)]
        return float((walked(name, start, [FIRST, *even]) - right).abs().mean())

    assert error(40) < error(20) / 3


@pytest.mark.parametrize("name", list(FACTS))
def test_a_schedule_of_one_step_from_pure_noise_ends_in_what_is_denoised(name: str, start: Tensor) -> None:
    if name not in {"DPM fast", "DPM adaptive", "PLMS", "UniPC"}:  # these do not go to 0
        assert torch.allclose(walked(name, start, [FIRST, 0.0]), denoised(start, FIRST))
    assert torch.isfinite(walked(name, start, [FIRST, LOWEST])).all()


def test_what_is_planned_is_what_is_called(start: Tensor) -> None:
    sigmas = [FIRST, 14.0, 5.0, 1.0, 0.1]
    assert plan("Heun", sigmas).calls == 1 + 2 * 3
    assert plan("Heun", sigmas[1:]).calls == 2 * 3
