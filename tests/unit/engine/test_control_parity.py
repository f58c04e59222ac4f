"""Final latents with control nets against diffusers' own pipelines: the same weights, noise, sigmas and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support import control_nets, controlled, small_checkpoints
from tests.support.controlled import CASES
from tests.support.parity import BOUND, by_day
from tests.unit.engine.conftest import Small
from worker.engine.adapters.control_nets import load
from worker.engine.loop.engine import Engine

IN_EVERY_RUN = {
    "SD 1, two nets for parts of the steps",
    "SD 1, a picture over another one",
}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, by numpy 2


@by_day(CASES, IN_EVERY_RUN)
def test_the_final_latent_is_that_of_diffusers(
    name: str, engine: Engine, small: Small, small_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    case = CASES[name]
    base = small_checkpoints.build(case.kind)
    build = control_nets.build_union if case.is_union else control_nets.build
    nets = [build(base, seed=place) for place in range(len(case.units))]
    if case.is_pooled:
        nets[0].register_to_config(global_pool_conditions=True)
    form = "folder" if case.is_pooled or case.is_union else "diffusers"
    written = [control_nets.write(net, tmp_path / f"net{place}", form) for place, net in enumerate(nets)]
    loaded = [load(path, engine.device, torch.float32) for path in written]
    found = controlled.of_engine(case, engine, small(case.kind), loaded)
    expected = controlled.of_diffusers(case, small_folder(case.kind), nets)
    plain = controlled.of_engine(controlled.without_control(case), engine, small(case.kind), [])
    assert 0.2 < float(expected.std()) < 5
    assert float((found - plain).abs().max()) > 100 * BOUND
    assert float((found - expected).abs().max()) < BOUND
