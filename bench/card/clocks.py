"""How long things take on a card."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import torch


def seconds(work: Callable[[], object], repeats: int, *, warm: int = 1) -> float:
    """Return the median of so many runs of `work`, each with the card idle before and after it.

    Some runs to `warm` up come before, unless there is but one.
    """
    for _ in range(warm if repeats > 1 else 0):
        work()
    found = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return median(found)


@contextmanager
def busy(card: torch.device) -> Iterator[list[float]]:
    """Yield a list that holds, when the block has ended, shares of time in which the card had work; none where
    nvidia-smi does not say.
    """
    found: list[float] = []
    if not shutil.which("nvidia-smi"):
        yield found
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    command = ["nvidia-smi", "-i", f"GPU-{torch.cuda.get_device_properties(card).uuid}", *query]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as sampling:
        try:
            yield found
        finally:
            sampling.terminate()
        lines = sampling.communicate()[0].split()
    found += [int(line) / 100 for line in lines[1:] if line.isdecimal()]  # the first is of the time before


def share(values: list[float], of: float) -> float:
    """Return the value below which a share of `values` lies, such as 0.99; 0 if there are none."""
    return sorted(values)[min(len(values) - 1, int(of * len(values)))] if values else 0.0
