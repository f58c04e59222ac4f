"""Final latents of every architecture against diffusers' own pipelines: the same weights, noise, sigmas and texts.

`python -m bench.against_diffusers` prints the differences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from tests.support import parity
from tests.support.parity import BOUND, CASES
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine

IN_EVERY_RUN = {
    ("SD 1", "file"),
    ("SD 2, velocity", "folder"),
    ("SDXL, own sizes and a negative prompt", "file"),
    ("SDXL with the refiner", "file"),
}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, by numpy 2
EVERY = [
    pytest.param(name, form, marks=() if (name, form) in IN_EVERY_RUN else pytest.mark.nightly)
    for name in CASES
    for form in ("file", "folder")
]


@pytest.fixture(scope="session")
def loaded(
    small_file: Callable[[str], Path], small_folder: Callable[[str], Path], cpu: Device
) -> dict[str, Callable[[str], Weights]]:
    """Load a small checkpoint from a form of it in float32, once a run."""
    return {
        "file": cache(lambda kind: load.load(small_file(kind), cpu, torch.float32)),
        "folder": cache(lambda kind: load.load(small_folder(kind), cpu, torch.float32)),
    }


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_the_final_latent_is_that_of_diffusers(
    name: str,
    form: str,
    engine: Engine,
    loaded: dict[str, Callable[[str], Weights]],
    small_folder: Callable[[str], Path],
) -> None:
    case = CASES[name]
    found = parity.of_engine(case, engine, loaded[form])
    expected = parity.of_diffusers(case, small_folder)
    assert 0.2 < float(expected.std()) < 5
    assert float((found - expected).abs().max()) < BOUND
