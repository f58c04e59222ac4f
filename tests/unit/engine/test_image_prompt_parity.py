"""Final latents with IP-Adapters against diffusers' own pipelines: the same weights, noise, sigmas and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support import control_nets, image_prompted, ip_adapters, small_checkpoints
from tests.support.image_prompted import CASES
from tests.support.parity import BOUND, by_day
from tests.unit.engine.conftest import Small
from worker.engine.adapters import control_nets as nets
from worker.engine.adapters.ip_adapters import load
from worker.engine.loading import image_encoders
from worker.engine.loop.engine import Engine

IN_EVERY_RUN = {"SD 1, plus, two pictures"}
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers, by numpy 2


@by_day(CASES, IN_EVERY_RUN)
def test_the_final_latent_is_that_of_diffusers(
    name: str, engine: Engine, small: Small, small_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    case = CASES[name]
    base, encoder = small_checkpoints.build(case.kind), ip_adapters.encoder()
    drawn = [ip_adapters.build(base, form, seed) for seed, (form, _, _) in enumerate(case.adapters)]
    written = [ip_adapters.write(one, tmp_path / f"{place}") for place, one in enumerate(drawn)]
    loaded = [load(path, engine.device, torch.float32) for path in written]
    reading = image_encoders.load(
        ip_adapters.write_encoder(encoder, tmp_path / "encoder", "folder"), engine.device, torch.float32
    )
    net = control_nets.build(base) if case.is_controlled else None
    own = net and nets.load(control_nets.write(net, tmp_path / "net"), engine.device, torch.float32)
    found = image_prompted.of_engine(case, engine, small(case.kind), reading, loaded, net=own)
    expected = image_prompted.of_diffusers(case, small_folder(case.kind), encoder, drawn, net)
    plain = image_prompted.of_engine(case, engine, small(case.kind), reading, [], net=own)
    assert 0.2 < float(expected.std()) < 5
    assert float((found - plain).abs().max()) > 100 * BOUND
    assert float((found - expected).abs().max()) < BOUND
