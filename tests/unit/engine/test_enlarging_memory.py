"""The memory of the host that a large picture takes on its way through an upscaler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import resource
from functools import partial
import numpy as np
from tests.support import upscalers
from worker.engine.devices import device
from worker.engine.loop.engine import Engine
from worker.engine.upscaling import architectures, enlarging

cpu = device("cpu:0")
engine = Engine(cpu)
engine.start()
network = architectures.built(upscalers.weights("Compact"))

def peak(side):
    pixels = np.random.default_rng(1).integers(0, 255, (side, side, 3), dtype=np.uint8)
    size = 4 * side, 4 * side
    made = engine.render(enlarging.enlarged_by(network, pixels, size, cpu)).result(3000)
    assert made.shape == (4 * side, 4 * side, 3)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

print(peak(256), peak({side}))
engine.stop()
"""


def grown_mib(side: int) -> int:
    """Return by how many MiB a square picture raises the peak of a process that has enlarged a small one by four."""
    command = [sys.executable, "-c", SCRIPT.replace("{side}", str(side))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    small, large = map(int, done.stdout.split())
    return large - small


@pytest.mark.nightly
def test_a_picture_of_2048_pixels_takes_little_more_than_the_bytes_of_its_result() -> None:
    assert grown_mib(2048) < 192 + 500  # the result, and two bands of it as fractions beside the tiles of one
