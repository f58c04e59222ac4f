"""Sigmas, noise, steps and samplers, against figures of reference implementations."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from itertools import count
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.params.geometry import img2img_steps
from shared.params.groups import Sampling
from shared.params.spellings import schedule_named
from tests.support.walks import finished
from worker.engine.sampling import schedules
from worker.engine.sampling.philox import normals
from worker.engine.sampling.registry import SAMPLERS
from worker.engine.sigma_table import ALIGNED_XL, SigmaTable

Case = dict[str, Any]

SD1: Final = SigmaTable.scaled_linear()
SIGMA_TOLERANCE: Final = 2e-5  # the figures have six digits and were computed in float32
SCHEDULES: Final = {
    "automatic/None(get_sigmas)": "uniform",
    "AYS sdxl": "align_your_steps",
    "AYS sd15": "align_your_steps",
}
SAMPLER_NAMES: Final = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "dpm_2_ancestral": "DPM2 a",
    "lms": "LMS",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_sde": "DPM++ SDE",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpm_fast": "DPM fast",
    "dpm_adaptive": "DPM adaptive",
}
_WITHOUT_NOISE: Final = {name: {"eta": 0.0} for name in ("dpm_fast", "dpm_adaptive")}  # as k-diffusion calls them


def check_sigmas(case: Case) -> None:
    """`karras10 discard`, `AYS sdxl 10`: a schedule's name, perhaps its steps, perhaps an option."""
    named, discards = case["schedule"].removesuffix(" discard"), case["schedule"].endswith(" discard")
    label, steps = _split(named)
    name = SCHEDULES.get(label) or schedule_named(label)
    table = replace(SD1, aligned=ALIGNED_XL) if "sdxl" in label else SD1
    options = Sampling(discard_next_to_last_sigma=discards)
    found = schedules.sigmas(table, sampler="Euler", schedule=name, steps=steps, options=options)
    assert found == pytest.approx(case["values"], rel=SIGMA_TOLERANCE)


def check_philox(case: Case) -> None:
    assert normals(case["seed"], 0, (6,)).tolist() == pytest.approx(case["first_six"], abs=1e-5)


def check_img2img_steps(case: Case) -> None:
    assert img2img_steps(case["steps"], case["denoising_strength"], exact=False).run == case["model_steps"]


def check_samplers(case: Case) -> None:
    calls = count()

    def model(x: Tensor, sigma: float) -> Generator[Any, Any, Tensor]:
        next(calls)
        yield from ()
        return torch.tanh(x / (1 + sigma))

    options = _WITHOUT_NOISE.get(case["sampler"], {}) | case["options"]
    suffix = " Heun" if options.pop("solver_type", None) == "heun" else ""
    noise = iter(torch.tensor(case["noise"], dtype=torch.float64))
    x = torch.tensor(case["x"], dtype=torch.float64)
    sampler = SAMPLERS[SAMPLER_NAMES[case["sampler"]] + suffix]
    walk = sampler(model, x, _sigmas(case), lambda *_: next(noise), Sampling(**options))
    torch.testing.assert_close(finished(walk), torch.tensor(case["result"], dtype=torch.float64), rtol=0, atol=1e-6)
    assert next(calls) == case["model_calls"]
    assert next(noise, None) is None


def _split(named: str) -> tuple[str, int]:
    """A schedule's label and its steps, 10 where it names none."""
    label = named.rstrip("0123456789")
    return label.strip(), int(named[len(label) :] or 10)


def _sigmas(case: Case) -> list[float]:
    """The sigmas of a case; of samplers that take the ends of a schedule alone, any that lie between them."""
    if "sigmas" in case:
        return case["sigmas"]
    return np.linspace(case["sigma_max"], case["sigma_min"], case["steps"] + 1).tolist()
