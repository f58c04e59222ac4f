"""Part 1: checkpoints of full size are written, and the engine reads them strictly."""

from __future__ import annotations

import time

import torch

from bench.card import files
from bench.card.bench import Bench
from worker.engine.loading import load


def run(bench: Bench) -> None:
    """Write and load each checkpoint."""
    setting = bench.setting
    written = {
        "full size": lambda: files.full(setting),
        "full size, another seed": lambda: files.full(setting, seed=1),
        "demo": lambda: files.demonstration(setting),
    }
    for name, write in written.items():
        bench.now(f"{name}: written")
        begun = time.perf_counter()
        path = write()
        bench.note(f"{name}, written", time.perf_counter() - begun, "s")
        bench.now(f"{name}: loaded")
        begun = time.perf_counter()
        loaded = load.load(path, bench.card, torch.float16)
        bench.note(f"{name}, first load", time.perf_counter() - begun, "s")
        bench.note(f"{name}, resident", loaded.bytes / 1e9, "GB")
