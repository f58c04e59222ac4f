"""The facts of samplers and schedules that forms, doors and papers go by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.params import Sampling
from shared.samplers import AUTOMATIC, SAMPLERS, SCHEDULE_OPTIONS, SCHEDULES, named, schedule_named, timesteps


@pytest.mark.parametrize(
    ("text", "sampler", "schedule"),
    [
        ("DPM++ 2M", "DPM++ 2M", None),
        (" dpm++ 2m sde HEUN ", "DPM++ 2M SDE Heun", None),
        ("k_euler_a", "Euler a", None),
        ("K_EULER_ANCESTRAL", "Euler a", None),
        ("unipc", "UniPC", None),
        ("DPM++ 2M Karras", "DPM++ 2M", "karras"),
        ("dpm++ 2m karras", "DPM++ 2M", "karras"),
        ("DPM++ 2M SDE Heun Exponential", "DPM++ 2M SDE Heun", "exponential"),
        ("Euler SGM Uniform", "Euler", "sgm_uniform"),
        ("LMS SGMUniform", "LMS", "sgm_uniform"),
        ("DPM2 a align_your_steps", "DPM2 a", "align_your_steps"),
        ("k_dpmpp_2m_ka", "DPM++ 2M", "karras"),
        ("k_dpmpp_2m_sde_exp", "DPM++ 2M SDE", "exponential"),
        ("Euler a Automatic", "Euler a", "automatic"),
    ],
)
def test_old_names_and_aliases_are_understood(text: str, sampler: str, schedule: str | None) -> None:
    assert named(text) == (sampler, schedule)


@pytest.mark.parametrize(
    "text", ["", " ", "_", "Karras", "Euler b", "Euler a b Karras", "DPM++ 2M Karros", "k__ka", "Euler a " * 20_000]
)
def test_what_names_no_sampler_is_none(text: str) -> None:
    assert named(text) is None


@given(st.text())
def test_any_text_is_a_known_sampler_or_none(text: str) -> None:
    meant = named(text)
    assert meant is None or meant.sampler in SAMPLERS


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=lambda sampler: sampler.name)
def test_every_spelling_of_a_sampler_means_it_and_no_other(sampler) -> None:
    for spelling in (sampler.name, *sampler.aliases):
        assert named(spelling) == (sampler.name, None)
        for name, label in SCHEDULES.items():
            assert named(f"{spelling} {label}") == named(f"{spelling} {name}") == (sampler.name, name)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("Karras", "karras"),
        ("sgm_uniform", "sgm_uniform"),
        ("SGM Uniform", "sgm_uniform"),
        ("SGMUniform", "sgm_uniform"),
        ("AUTOMATIC", AUTOMATIC),
        ("kl optimal", "kl_optimal"),
        ("DDIM", "ddim"),
        ("cosine", None),
        ("", None),
    ],
)
def test_schedules_are_known_by_name_and_label(text: str, schedule: str | None) -> None:
    assert schedule_named(text) == schedule


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
