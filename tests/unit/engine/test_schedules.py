from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from scipy.stats import beta as beta_distribution
from torch import tensor

from shared.errors import RenderError
from shared.params.groups import Sampling
from shared.params.samplers import AUTOMATIC, SAMPLERS, SCHEDULE_OPTIONS
from shared.params.samplers import SCHEDULES as LABELS
from worker.engine.sampling import schedules
from worker.engine.sigma_table import SigmaTable

SD1 = SigmaTable.scaled_linear()
PLAIN = Sampling()
NAMED = [name for name in LABELS if name != AUTOMATIC]
BOUNDED = {"sigma_min": 0.1, "sigma_max": 10.0}


def walk(schedule: str, steps: int, *, sampler: str = "Euler", run_last: int | None = None, **options) -> list[float]:
    return schedules.sigmas(
        SD1, sampler=sampler, schedule=schedule, steps=steps, options=Sampling(**options), run_last=run_last
    )


@pytest.mark.parametrize("schedule", sorted(set(NAMED) - {"ddim", "kl_optimal"}))
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 150])
def test_sigmas_fall_from_the_tables_end_to_zero(schedule: str, steps: int) -> None:
    sigmas = walk(schedule, steps)
    assert len(sigmas) == steps + 1
    assert sigmas[0] == pytest.approx(SD1.highest, rel=1e-3)  # Align Your Steps has its own three digits
    assert sigmas[-1] == 0
    assert sigmas == sorted(set(sigmas), reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_kl_optimal_ends_at_the_lowest_sigma(steps: int) -> None:
    sigmas = walk("kl_optimal", steps)
    assert len(sigmas) == steps + 1
    assert (sigmas[0], sigmas[-1]) == pytest.approx((SD1.highest, SD1.lowest))


@pytest.mark.parametrize(("steps", "calls"), [(10, 10), (20, 20), (30, 31), (1, 1)])
def test_the_ddim_schedule_has_a_sigma_for_every_so_many_timesteps(steps: int, calls: int) -> None:
    sigmas = walk("ddim", steps)
    assert len(sigmas) - 1 == calls
    assert sigmas[-2:] == [SD1.values[1], 0.0]


@pytest.mark.parametrize("steps", [2, 7, 20])
def test_beta_has_the_quantiles_of_the_distribution(steps: int) -> None:
    quantiles = beta_distribution.ppf(1 - np.linspace(0, 1, steps), 0.6, 0.6)
    expected = SD1.lowest + quantiles * (SD1.highest - SD1.lowest)
    assert walk("beta", steps) == pytest.approx([*expected, 0.0])


def test_exponential_falls_by_one_ratio() -> None:
    ratios = [after / before for before, after in pairwise(walk("exponential", 9)[:-1])]
    assert ratios == pytest.approx([(SD1.lowest / SD1.highest) ** (1 / 8)] * 8)
    assert walk("polyexponential", 9) == pytest.approx(walk("exponential", 9))
    assert walk("polyexponential", 9, rho=2.0)[4] == pytest.approx(
        math.exp(0.25 * math.log(SD1.highest / SD1.lowest)) * SD1.lowest
    )


def test_sgm_uniform_leaves_out_the_lowest_timestep() -> None:
    timesteps = [SD1.timestep(sigma) for sigma in walk("sgm_uniform", 9)[:-1]]
    assert timesteps == pytest.approx([999 * (1 - step / 9) for step in range(9)], abs=1e-6)


@pytest.mark.parametrize("schedule", NAMED)
def test_a_schedule_takes_its_own_options_and_no_others(schedule: str) -> None:
    for option, value in (BOUNDED | {"rho": 3.0}).items():
        changed = walk(schedule, 10, **{option: value}) != walk(schedule, 10)
        assert changed == (option in SCHEDULE_OPTIONS.get(schedule, ()))


@pytest.mark.parametrize("schedule", [name for name in NAMED if "sigma_min" in SCHEDULE_OPTIONS.get(name, ())])
def test_a_bounded_schedule_keeps_to_its_bounds(schedule: str) -> None:
    sigmas = [sigma for sigma in walk(schedule, 10, **BOUNDED) if sigma]
    assert sigmas[0] == pytest.approx(10.0)
    if schedule != "sgm_uniform":
        assert sigmas[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("options", [{"sigma_min": 20.0}, {"sigma_max": 0.01}, {"sigma_min": 2.0, "sigma_max": 2.0}])
def test_bounds_that_cross_are_refused(options: dict) -> None:
    with pytest.raises(RenderError, match=r"sigma_min .* does not lie below sigma_max .*0\.0291672 and 14\.6146"):
        walk("karras", 10, **options)


def test_the_next_to_last_sigma_is_left_out_where_the_sampler_or_the_person_says_so() -> None:
    longer = walk("karras", 11)
    shortened = [*longer[:-2], 0.0]
    assert walk("karras", 10, discard_next_to_last_sigma=True) == shortened
    assert walk("karras", 10, sampler="DPM2") == shortened
    assert walk("karras", 10, sampler="DPM2", discard_next_to_last_sigma=False) == walk("karras", 10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_automatic_is_the_samplers_own_way(sampler: str) -> None:
    facts = SAMPLERS[sampler]
    found = walk(AUTOMATIC, 10, sampler=sampler)
    if facts.automatic in LABELS:
        assert found == walk(facts.automatic, 10, discard_next_to_last_sigma=facts.discards_next_to_last_sigma)
    assert found == sorted(set(found), reverse=True)


def test_ddim_takes_every_fiftieth_timestep_from_one_on_for_twenty_steps() -> None:
    for sampler in ("DDIM", "DDIM CFG++", "PLMS"):
        timesteps = [SD1.timestep(sigma) for sigma in walk(AUTOMATIC, 20, sampler=sampler)]
        assert timesteps == pytest.approx(list(range(951, 0, -50)), abs=1e-6)


def test_unipc_takes_as_many_steps_evenly_from_the_last_timestep_to_the_first() -> None:
    timesteps = [SD1.timestep(sigma) for sigma in walk(AUTOMATIC, 30, sampler="UniPC")]
    assert timesteps == pytest.approx([999 * (1 - step / 31) for step in range(32)], abs=1e-6)


def test_lcm_takes_timesteps_that_its_checkpoints_know() -> None:
    timesteps = [SD1.timestep(sigma) for sigma in walk(AUTOMATIC, 4, sampler="LCM")[:-1]]
    assert timesteps == pytest.approx([999, 679, 339, 19], abs=1e-6)


@pytest.mark.parametrize(("sampler", "calls", "first"), [("Euler", 16, None), ("DDIM", 14, 701), ("PLMS", 14, 701)])
def test_a_kept_end_of_the_way_is_what_image_to_image_walks(sampler: str, calls: int, first: int | None) -> None:
    found = walk(AUTOMATIC, 20, sampler=sampler, run_last=15)
    assert len(found) - 1 == calls
    assert found == walk(AUTOMATIC, 20, sampler=sampler)[-len(found) :]
    if first is not None:
        assert SD1.timestep(found[0]) == pytest.approx(first)


def test_unipc_spaces_its_steps_anew_over_a_kept_end() -> None:
    timesteps = [SD1.timestep(sigma) for sigma in walk(AUTOMATIC, 20, sampler="UniPC", run_last=15)]
    assert timesteps == pytest.approx([701 * (1 - step / 15) for step in range(16)], abs=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_kept_end_has_a_step_however_short_it_is(sampler: str) -> None:
    assert len(walk(AUTOMATIC, 20, sampler=sampler, run_last=0)) >= 2


@pytest.mark.parametrize("timestep", [0, 0.25, 1, 499.5, 998.75, 999])
def test_a_timestep_comes_back_from_its_sigma(timestep: float) -> None:
    assert SD1.timestep(SD1.sigma(timestep)) == pytest.approx(timestep, abs=1e-6)


@pytest.mark.parametrize(("sigma", "timestep"), [(0.0, 0), (0.001, 0), (100.0, 999)])
def test_a_sigma_beyond_the_table_is_its_end(sigma: float, timestep: float) -> None:
    assert SD1.timestep(sigma) == timestep


def test_the_table_at_zero_terminal_snr_is_that_of_diffusers_but_for_its_end() -> None:
    betas = tensor(np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    shares = (1 - rescale_zero_terminal_snr(betas)).cumprod(0)[:-1]
    rescaled = SD1.at_zero_terminal_snr()
    assert rescaled.values[:-1] == pytest.approx(((1 - shares) / shares).sqrt().tolist(), rel=1e-9)
    assert rescaled.highest == pytest.approx(4518.77, abs=0.1)
    assert rescaled.lowest == pytest.approx(SD1.lowest)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_checkpoint_of_few_timesteps_is_walked_all_the_same(sampler: str) -> None:
    table = SigmaTable.scaled_linear(steps=2)
    for schedule in SAMPLERS[sampler].schedules:
        found = schedules.sigmas(table, sampler=sampler, schedule=schedule, steps=20, options=PLAIN)
        assert len(found) > 1
        assert found == sorted(set(found), reverse=True)


@pytest.mark.parametrize("schedule", LABELS)
def test_a_schedule_far_longer_than_the_table_still_ends_in_steps(schedule: str) -> None:
    """As hires fix at a strength near 0 asks for; some schedules have no more sigmas than the table."""
    found = schedules.sigmas(SigmaTable.scaled_linear(), sampler="Euler", schedule=schedule, steps=20_000, run_last=19)
    assert 2 <= len(found) <= 21
