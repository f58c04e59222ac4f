from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.params import RenderParams
from shared.samplers import AUTOMATIC, SAMPLERS
from worker.engine import schedules
from worker.engine.schedules import SigmaTable

ORACLES = json.loads((Path(__file__).parents[2] / "data" / "oracles" / "sigmas.json").read_text())["cases"]
KNOWN = {case["schedule"]: case["values"] for case in ORACLES}
TOLERANCE = 2e-5  # the oracle has six digits and was computed in float32
SD1 = SigmaTable.scaled_linear()


def test_uniform_gives_the_known_sigmas() -> None:
    assert schedules.uniform(SD1, 10) == pytest.approx(KNOWN["automatic/None(get_sigmas)"], rel=TOLERANCE)


def test_karras_gives_the_known_sigmas() -> None:
    assert schedules.karras(SD1, 10) == pytest.approx(KNOWN["Karras"], rel=TOLERANCE)


@pytest.mark.parametrize("schedule", [schedules.uniform, schedules.karras])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 150])
def test_sigmas_fall_from_the_tables_end_to_zero(schedule, steps: int) -> None:
    sigmas = schedule(SD1, steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(SD1.highest)
    assert sigmas[-1] == 0
    assert sigmas == sorted(set(sigmas), reverse=True)


@pytest.mark.parametrize(("steps", "calls"), [(20, 19), (30, 30), (2, 1), (1, 1), (50, 49), (150, 166)])
def test_ddim_calls_the_model_as_often_as_its_timesteps_say(steps: int, calls: int) -> None:
    assert len(schedules.ddim(SD1, steps)) - 1 == calls


def test_ddim_takes_every_fiftieth_timestep_from_one_on_for_twenty_steps() -> None:
    timesteps = [SD1.timestep(sigma) for sigma in schedules.ddim(SD1, 20)]
    assert timesteps == pytest.approx(list(range(951, 0, -50)), abs=1e-6)


@pytest.mark.parametrize("timestep", [0, 0.25, 1, 499.5, 998.75, 999])
def test_a_timestep_comes_back_from_its_sigma(timestep: float) -> None:
    assert SD1.timestep(SD1.sigma(timestep)) == pytest.approx(timestep, abs=1e-6)


@pytest.mark.parametrize(("sigma", "timestep"), [(0.0, 0), (0.001, 0), (100.0, 999)])
def test_a_sigma_beyond_the_table_is_its_end(sigma: float, timestep: float) -> None:
    assert SD1.timestep(sigma) == timestep


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_automatic_is_a_schedule_that_the_sampler_takes(sampler: str) -> None:
    params = RenderParams(sampler=sampler, schedule=AUTOMATIC, steps=10)
    assert schedules.sigmas(SD1, params) == schedules.SCHEDULES[SAMPLERS[sampler].automatic](SD1, 10)


def test_a_schedule_that_is_named_is_taken() -> None:
    params = RenderParams(sampler="Euler a", schedule="karras", steps=10)
    assert schedules.sigmas(SD1, params) == schedules.karras(SD1, 10)


@pytest.mark.parametrize("schedule", schedules.SCHEDULES.values())
def test_more_steps_than_timesteps_are_walked_all_the_same(schedule: Any) -> None:
    sigmas = schedule(SigmaTable.scaled_linear(steps=2), 20)
    assert sigmas == sorted(sigmas, reverse=True)
    assert len(sigmas) > 1
