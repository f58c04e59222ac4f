"""The facts of samplers and schedules, which forms, admission and metadata use."""

from __future__ import annotations

import pytest

from shared.params.groups import Sampling
from shared.params.samplers import SAMPLERS, SCHEDULE_OPTIONS, timesteps


@pytest.mark.parametrize(
    ("sampler", "counts"),
    [
        ("Euler", {1: 1, 20: 20, 30: 30}),
        ("DPM++ 2M", {1: 1, 20: 20}),
        ("Heun", {1: 1, 20: 39}),
        ("DPM++ SDE", {10: 19, 20: 39}),
        ("Restart", {10: 19, 20: 39, 36: 71, 40: 79}),
        ("DDIM", {1: 1, 20: 19, 30: 30}),
        ("DDIM CFG++", {20: 19, 30: 30}),
        ("PLMS", {20: 20, 30: 31}),
        ("UniPC", {20: 20, 30: 31}),
        ("LCM", {4: 4}),
    ],
)
def test_the_model_calls_of_a_render_are_known_beforehand(sampler: str, counts: dict[int, int]) -> None:
    assert {steps: SAMPLERS[sampler].calls(steps) for steps in counts} == counts


def test_options_are_fields_of_the_parameters() -> None:
    taken = {option for sampler in SAMPLERS.values() for option in sampler.options}
    taken |= {option for options in SCHEDULE_OPTIONS.values() for option in options}
    assert taken | {"discard_next_to_last_sigma", "zero_terminal_snr"} == set(Sampling.model_fields)


@pytest.mark.parametrize("steps", [*range(1, 61), 150, 333, 999, 1000])
def test_timesteps_rise_within_the_training_range(steps: int) -> None:
    known = timesteps(steps)
    assert known == sorted(known)
    assert 1 <= known[0] <= known[-1] <= 999
