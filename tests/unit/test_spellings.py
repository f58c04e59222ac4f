"""How samplers and schedules are spelled, here and by other programs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.params.samplers import AUTOMATIC, SAMPLERS, SCHEDULES
from shared.params.spellings import caveat, home, named, schedule_named


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
        # ComfyUI, and what its image savers write
        ("euler_ancestral", "Euler a", None),
        ("dpmpp_2m_karras", "DPM++ 2M", "karras"),
        ("dpmpp_2m_sde_gpu", "DPM++ 2M SDE", None),
        ("dpmpp_2m_sde_gpu_karras", "DPM++ 2M SDE", "karras"),
        ("dpmpp_2m_sde_heun_gpu", "DPM++ 2M SDE Heun", None),
        ("dpmpp_3m_sde_gpu_exponential", "DPM++ 3M SDE", "exponential"),
        ("dpmpp_sde_gpu", "DPM++ SDE", None),
        ("dpmpp_2s_ancestral", "DPM++ 2S a", None),
        ("dpm_2", "DPM2", None),
        ("dpm_2_ancestral_karras", "DPM2 a", "karras"),
        ("euler_ancestral_sgm_uniform", "Euler a", "sgm_uniform"),
        ("euler_ddim_uniform", "Euler", "ddim"),
        ("euler_normal", "Euler", "normal"),
        ("dpm_fast", "DPM fast", None),
        ("dpm_adaptive", "DPM adaptive", None),
        ("uni_pc", "UniPC", None),
        ("uni_pc_bh2", "UniPC", None),
        ("lcm", "LCM", None),
        # k-diffusion, diffusers, InvokeAI, NovelAI, Easy Diffusion, Draw Things
        ("sample_dpmpp_2m", "DPM++ 2M", None),
        ("sample_heun", "Heun", None),
        ("EulerAncestralDiscreteScheduler", "Euler a", None),
        ("EulerDiscreteScheduler", "Euler", None),
        ("DPMSolverMultistepScheduler", "DPM++ 2M", None),
        ("KDPM2AncestralDiscreteScheduler", "DPM2 a", None),
        ("PNDMScheduler", "PLMS", None),
        ("DDIMScheduler", "DDIM", None),
        ("UniPCMultistepScheduler", "UniPC", None),
        ("euler_a", "Euler a", None),
        ("dpmpp_2m_k", "DPM++ 2M", "karras"),
        ("kdpm_2_a_k", "DPM2 a", "karras"),
        ("dpm2_a", "DPM2 a", None),
        ("k_dpmpp_2s_ancestral", "DPM++ 2S a", None),
        ("ddim_v3", "DDIM", None),
        ("DPM++ 2M AYS", "DPM++ 2M", "align_your_steps"),
        ("Euler Ancestral", "Euler a", None),
    ],
)
def test_old_names_and_aliases_are_understood(text: str, sampler: str, schedule: str | None) -> None:
    assert named(text) == (sampler, schedule)


NO_SAMPLERS = """
_|Karras|karras|Euler b|Euler a b Karras|DPM++ 2M Karros|k__ka|heunpp2|heunpp2_karras|ddpm|deis|euler_cfg_pp|++|pp|_gpu
dpmpp_2m_cfg_pp|dpmpp_2s|dpmpp_3m|DPMSolverSinglestepScheduler|DDPMScheduler|res_multistep|k_gpu|ancestral|Scheduler
"""


@pytest.mark.parametrize("text", ["", " ", "Euler a " * 20_000, *re.split(r"[|\n]", NO_SAMPLERS.strip())])
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
        ("ddim_uniform", "ddim"),
        ("AYS", "align_your_steps"),
        ("cosine", None),
        ("", None),
    ],
)
def test_schedules_are_known_by_name_and_label(text: str, schedule: str | None) -> None:
    assert schedule_named(text) == schedule


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("heunpp2", "ComfyUI"),
        ("heunpp2_karras", "ComfyUI"),
        ("DDPMScheduler", "ComfyUI"),
        ("dpmpp_2s", "InvokeAI"),
        ("DPMSolverSinglestepScheduler", "diffusers"),
        ("Euler b", None),
        ("Euler", None),
    ],
)
def test_samplers_without_a_counterpart_are_known_for_what_they_are(text: str, program: str | None) -> None:
    assert home(text) == program


def test_a_sampler_that_is_not_quite_the_same_is_told() -> None:
    assert "bh2" in (caveat("uni_pc_bh2") or "")
    assert caveat("uni_pc") is None
