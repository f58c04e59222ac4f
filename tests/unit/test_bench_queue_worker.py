from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from bench.queue_worker import Clocks, wrap
from worker.dispatch import slots

carry = slots.Slots.run
wrap(Clocks())
print(slots.Slots.run is not carry)
"""


def test_clocks_of_the_bench_find_every_seam_of_a_lifecycle():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
