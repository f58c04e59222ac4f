"""The way down from a sigma of 4096, where zero terminal SNR begins, against a fine integration in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from shared.params.groups import Sampling
from shared.params.samplers import AUTOMATIC, SCHEDULES
from shared.params.samplers import SAMPLERS as FACTS
from tests.support.flows import finely, mixture
from tests.support.walks import Denoiser, finished
from worker.engine.sampling import schedules
from worker.engine.sampling.registry import SAMPLERS, plan
from worker.engine.sigma_table import ALIGNED_XL, SigmaTable

FIRST, HIGHEST, LOWEST = 4096.0, 14.6, 0.03
TABLE = SigmaTable(SigmaTable.scaled_linear().values, ALIGNED_XL).at_zero_terminal_snr()
STOCHASTIC = {"LCM"}  # noised again at each step, whatever eta is: no integration of the flow


def walked(name: str, x: Tensor, sigmas: list[float]) -> Tensor:
    def model(x, sigma):
        yield from ()
        found = mixture(x, sigma)
        return (found, found) if FACTS[name].needs_unconditional else found

    options = Sampling(eta=0.0) if "eta" in FACTS[name].options else Sampling()
    return finished(SAMPLERS[name](model, x, sigmas, lambda *_: torch.zeros_like(x), options))


@pytest.fixture(scope="module")
def start() -> Tensor:
    return torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * FIRST


@pytest.fixture(scope="module")
def right(start: Tensor) -> Tensor:
    return finely(mixture, start, FIRST)(LOWEST)


@pytest.mark.parametrize("name", [name for name in FACTS if name not in STOCHASTIC])
@pytest.mark.parametrize("schedule", ["of the checkpoint", "Karras"])
def test_every_sampler_comes_down_from_pure_noise(name: str, schedule: str, start: Tensor, right: Tensor) -> None:
    count = 18 if name == "Restart" else 32  # from 20 on it climbs by noise, which is none here
    even = [HIGHEST * (LOWEST / HIGHEST) ** (step / (count - 1)) for step in range(count)]
    ends = FIRST ** (1 / 7), LOWEST ** (1 / 7)
    bent = [(ends[0] + step / count * (ends[1] - ends[0])) ** 7 for step in range(count + 1)]
    sigmas = [FIRST, *even] if schedule == "of the checkpoint" else bent
    first_order = FACTS[name].order == 1 and name.startswith(("Euler", "DDIM"))
    bound = 0.15 if first_order else 0.02 if schedule == "of the checkpoint" else 0.06
    if name == "Restart":
        bound = 0.2  # of fewer steps; 0.33 with a first step of second order
    assert float((walked(name, start, sigmas) - right).abs().mean()) < bound


@pytest.mark.parametrize("name", list(FACTS))
def test_a_schedule_of_one_step_from_pure_noise_ends_in_what_is_denoised(name: str, start: Tensor) -> None:
    if name not in {"DPM fast", "DPM adaptive", "PLMS", "UniPC"}:  # these do not go to 0
        assert torch.allclose(walked(name, start, [FIRST, 0.0]), mixture(start, FIRST))
    assert torch.isfinite(walked(name, start, [FIRST, LOWEST])).all()


def test_what_is_planned_is_what_is_called(start: Tensor) -> None:
    sigmas = [FIRST, 14.0, 5.0, 1.0, 0.1]
    assert plan("Heun", sigmas).calls == 1 + 2 * 3
    assert plan("Heun", sigmas[1:]).calls == 2 * 3


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name not in {AUTOMATIC, "align_your_steps"}])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 150])
def test_a_schedule_falls_from_pure_noise_to_its_end(schedule: str, steps: int) -> None:
    sigmas = schedules.sigmas(TABLE, sampler="Euler", schedule=schedule, steps=steps)
    first = TABLE.values[-1 - 998 % max(1000 // steps, 1)] if schedule == "ddim" else TABLE.highest
    assert sigmas[0] == pytest.approx(first)
    assert sigmas[-1] == (pytest.approx(TABLE.lowest) if schedule == "kl_optimal" else 0)
    assert sigmas == sorted(set(sigmas), reverse=True)
    assert all(map(math.isfinite, sigmas))


@pytest.mark.parametrize("steps", [1, 7, 11, 40])
def test_align_your_steps_begins_where_it_was_found_whatever_the_table(steps: int) -> None:
    usual = SigmaTable(SigmaTable.scaled_linear().values, ALIGNED_XL)
    found, expected = (
        schedules.sigmas(table, sampler="Euler", schedule="align_your_steps", steps=steps) for table in (TABLE, usual)
    )
    assert found == expected
    assert found[0] == pytest.approx(ALIGNED_XL[0])
    if steps == len(ALIGNED_XL):
        assert found == pytest.approx([*ALIGNED_XL, 0.0])


@pytest.mark.parametrize("schedule", ["beta", "normal", "simple"])
def test_most_steps_of_a_schedule_are_taken_where_something_of_a_picture_is_left(schedule: str) -> None:
    sigmas = schedules.sigmas(TABLE, sampler="Euler", schedule=schedule, steps=20)
    assert sum(sigma < HIGHEST for sigma in sigmas) >= 10


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if not facts.is_adaptive])
def test_every_pair_makes_the_calls_that_are_planned(name: str) -> None:
    for schedule in FACTS[name].schedules:
        for steps in (1, 2, 20):
            sigmas = schedules.sigmas(TABLE, sampler=name, schedule=schedule, steps=steps)
            model, queries = Denoiser.of(name), []
            noise = lambda *query: queries.append(query) or torch.ones(4)  # noqa: B023, E731
            result = finished(SAMPLERS[name](model, torch.ones(4) * sigmas[0], sigmas, noise))
            assert result.isfinite().all()
            known = plan(name, sigmas)
            assert (known.calls, known.queries) == (len(model.sigmas), tuple(queries))


@pytest.mark.parametrize("steps", [1, 2, 20, 50])
def test_the_steps_that_were_asked_for_do_not_change_an_adaptive_walk(steps: int, start: Tensor) -> None:
    sigmas = schedules.sigmas(TABLE, sampler="DPM adaptive", schedule=AUTOMATIC, steps=steps)
    x = start / FIRST * sigmas[0]
    right = finely(mixture, x, sigmas[0])(TABLE.lowest)
    assert float((walked("DPM adaptive", x, sigmas) - right).abs().mean()) < 0.02


def test_restart_goes_up_again_from_pure_noise_too() -> None:
    sigmas = schedules.sigmas(TABLE, sampler="Restart", schedule=AUTOMATIC, steps=20)
    known = plan("Restart", sigmas)
    assert [round(sigma_next) for _, sigma_next in known.queries] == [3]
    assert known.calls == 39 - sum(sigma > 1000 for sigma in schedules.bent(TABLE.lowest, TABLE.highest, 11))


def test_a_table_that_ends_in_pure_noise_is_not_rescaled_again() -> None:
    assert TABLE.at_zero_terminal_snr() == TABLE
