from __future__ import annotations

import json
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from worker.engine import schedules
from worker.engine.samplers import SAMPLERS, ancestral_step
from worker.engine.schedules import SigmaTable

NAMES = {"euler": "Euler", "euler_ancestral": "Euler a", "dpmpp_2m": "DPM++ 2M"}
ORACLES = json.loads((Path(__file__).parents[2] / "data" / "oracles" / "samplers.json").read_text())["cases"]
CASES = [case for case in ORACLES if case["sampler"] in NAMES]
SD1 = SigmaTable.scaled_linear()


class Model:
    """A denoiser known in closed form, which counts its calls and asks no card."""

    def __init__(self) -> None:
        self.sigmas: list[float] = []

    def __call__(self, x: Tensor, sigma: float) -> Generator[Any, Any, Tensor]:
        self.sigmas.append(sigma)
        return torch.tanh(x / (1 + sigma))
        yield


def finished(sampler: Generator[Any, Any, Tensor]) -> Tensor:
    """What a sampler returns whose model never waits."""
    with pytest.raises(StopIteration) as end:
        next(sampler)
    return end.value.value


def no_noise(sigma: float, sigma_next: float) -> Tensor:
    raise AssertionError("this sampler draws no noise")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["sampler"])
def test_a_sampler_gives_the_reference_result(case: dict) -> None:
    draws = iter(torch.tensor(case["noise"], dtype=torch.float64))
    x = torch.tensor(case["x"], dtype=torch.float64)
    model = Model()
    result = finished(SAMPLERS[NAMES[case["sampler"]]](model, x, case["sigmas"], lambda *_: next(draws)))
    torch.testing.assert_close(result, torch.tensor(case["result"], dtype=torch.float64), rtol=0, atol=1e-6)
    assert len(model.sigmas) == case["model_calls"]
    assert next(draws, None) is None


def test_ddim_follows_diffusers_down_the_same_timesteps() -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(20)
    noise = torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigmas = schedules.ddim(SD1, 20)

    expected = noise  # at the variance-preserving scale, where diffusers works
    for timestep, sigma in zip(scheduler.timesteps[:-1], sigmas, strict=False):
        x = expected * math.hypot(1, sigma)
        predicted = (x - torch.tanh(x / (1 + sigma))) / sigma
        expected = scheduler.step(predicted, timestep, expected).prev_sample

    model = Model()
    result = finished(SAMPLERS["DDIM"](model, noise * math.hypot(1, sigmas[0]), sigmas, no_noise))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    assert len(model.sigmas) == 19


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_calls_the_model_once_a_step(name: str) -> None:
    model = Model()
    sigmas = schedules.karras(SD1, 7)
    finished(SAMPLERS[name](model, torch.ones(4), sigmas, lambda *_: torch.ones(4)))
    assert model.sigmas == sigmas[:-1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_of_one_step_returns_what_the_model_said(name: str) -> None:
    x = torch.linspace(-10, 10, 5, dtype=torch.float64)
    sigmas = [SD1.highest, 0.0]
    result = finished(SAMPLERS[name](Model(), x, sigmas, no_noise))
    torch.testing.assert_close(result, torch.tanh(x / (1 + sigmas[0])), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_leaves_its_start_as_it_was(name: str) -> None:
    x = torch.ones(4)
    finished(SAMPLERS[name](Model(), x, schedules.uniform(SD1, 5), lambda *_: torch.ones(4)))
    assert torch.equal(x, torch.ones(4))


class NothingRead(TorchDispatchMode):
    """Fails where a number is read from a tensor: on a card that waits for everything before it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a sampler read a number from the card"
        assert not func._schema.is_mutable, f"a sampler changed a tensor in place: {func}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_reads_no_number_from_the_card_and_changes_nothing_in_place(name: str) -> None:
    with NothingRead():
        finished(SAMPLERS[name](Model(), torch.ones(4), schedules.uniform(SD1, 5), lambda *_: torch.ones(4)))


@pytest.mark.parametrize(("sigma", "sigma_next"), [(14.6, 9.1), (1.0, 0.5), (0.03, 0.029)])
def test_an_ancestral_step_ends_at_the_next_sigma(sigma: float, sigma_next: float) -> None:
    down, up = ancestral_step(sigma, sigma_next)
    assert math.hypot(down, up) == pytest.approx(sigma_next)
    assert ancestral_step(sigma, 0.0) == (0.0, 0.0)
    assert ancestral_step(sigma, sigma_next, eta=0.0) == (sigma_next, 0.0)
