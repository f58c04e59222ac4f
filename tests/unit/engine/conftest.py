from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Protocol

import pytest
import torch

from shared.params.render import RenderParams
from tests.support import small_checkpoints
from tests.support.checkpoints import NATIVE_SIZE, write_tiny
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device, device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine


class Small(Protocol):
    """Loads the small checkpoint of a kind that `tests.support.small_checkpoints` draws from a seed."""

    def __call__(self, kind: str, seed: int = 0, /) -> Weights: ...


@pytest.fixture(scope="session")
def small(cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Each checkpoint is loaded once a run, from a single file."""
    folder = tmp_path_factory.mktemp("small")

    @cache
    def loaded(kind: str, seed: int = 0) -> Weights:
        path = folder / f"{kind}-{seed}.safetensors"
        return load.load(small_checkpoints.write_file(small_checkpoints.built(kind, seed), path), cpu, torch.float32)

    return loaded


@pytest.fixture(scope="session")
def cpu() -> Device:
    return device("cpu:0")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny(tiny_path: Path, cpu: Device) -> Weights:
    return load.load(tiny_path, cpu, torch.float32)


@pytest.fixture
def engine(cpu: Device) -> Iterator[Engine]:
    engine = Engine(cpu)
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def params() -> RenderParams:
    return RenderParams(
        prompt="sea at night", checkpoint="tiny", width=NATIVE_SIZE, height=NATIVE_SIZE, steps=4, cfg_scale=3.0, seed=7
    )
