"""A full-size SDXL file is recognised by its header alone, and loaded without a copy too many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import load
from shared.models.folders import ModelFolders
from shared.models.scan import scan
from tests.support.checkpoints import inspected
from worker.engine.files import tensors
from worker.engine.loading import layouts, networks
from worker.render.inspector import LIMITS, Inspector

TENSORS = 2515  # of Stability's own file, sd_xl_base_1.0.safetensors
SIZE = 6.94e9  # bytes
ROOM = 2**30  # bytes of the host that are left to others


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = load.write(tmp_path)
    yield path
    path.unlink()


def test_a_full_size_file_takes_no_room_and_is_recognised(path: Path) -> None:
    status = path.stat()
    assert status.st_size == pytest.approx(SIZE, rel=0.001)
    assert 512 * status.st_blocks < 2**20
    assert len(tensors.read(path, "meta")) == TENSORS
    inspection = inspected(path)
    assert inspection.reason is None
    assert (inspection.kind, inspection.architecture, inspection.prediction) == ("checkpoint", "sdxl", "noise")
    assert (inspection.native_size, inspection.has_vae) == (1024, True)


def test_the_networks_of_a_full_size_file_are_built_without_weights(path: Path) -> None:
    parts = layouts.read(path, "meta")
    built = networks.build(parts)
    weights = [weight for network in built.values() for weight in network.state_dict().values()]
    assert all(weight.is_meta for weight in weights)
    assert sum(weight.numel() for weight in weights) == 3_468_837_867
    assert sum(len(part.weights) for part in parts.networks.values()) == len(weights)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_full_size_file_is_scanned_and_loaded_with_its_own_size_of_memory(path: Path) -> None:
    """A quarter of the memory that its reader is allowed is enough. In float32 its weights have twice their size."""
    size = path.stat().st_size
    require_memory(2 * size + ROOM)
    inspector = Inspector(replace(LIMITS, memory_bytes=LIMITS.memory_bytes // 4))
    (scanned,) = scan(ModelFolders((path.parent,)), [], inspector, locate=inspector.places)
    inspector.close()
    assert scanned.sha256
    assert scanned.inspection
    assert scanned.inspection.architecture == "sdxl"
    assert scanned.components
    assert all(component.digest for component in scanned.components.values())
    took = {phase: load.taken(phase, path) for phase in load.PHASES}
    own = {phase: one.anonymous / size for phase, one in took.items()}
    assert max(own[phase] for phase in load.WITHOUT_WEIGHTS) < 0.02, own
    assert own["load it to a card in float16"] < 0.15, "two chunks of pinned memory"
    assert 0.95 < own["cache it for a card in float16"] < 1.05, own
    assert 0.95 < own["load it to a CPU in float16"] < 1.3, own
    assert 1.9 < own["load it to a CPU in float32"] < 2.1, own
    assert max(one.mapped for one in took.values()) <= 1.02 * size, "of the file itself, which the system reclaims"


def require_memory(size: float) -> None:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    if available < size:
        pytest.skip(f"it needs {size / 1e9:.0f} GB of memory, and {available / 1e9:.0f} GB are free")
