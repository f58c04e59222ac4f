"""How far final latents are from those of diffusers' own pipelines, on small random checkpoints of each architecture.

The same weights, noise, sigmas and texts, float32 on the CPU; each checkpoint as a single file and as a folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import torch
from diffusers.utils import logging

from tests.support import parity, small_checkpoints
from worker.engine.architectures.weights import Weights
from worker.engine.devices import device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine

CPU: Final = "cpu:0"

Paths = Callable[[str], Path]


def main() -> None:
    """Print the largest difference of each case."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    engine = Engine(device(CPU))
    engine.start()
    try:
        with tempfile.TemporaryDirectory() as models:
            _print_table(engine, *_written(Path(models)))
    finally:
        engine.stop()


def _written(models: Path) -> tuple[Paths, Paths]:
    """Return what writes a small checkpoint as a single file, and as a folder."""
    build = cache(small_checkpoints.build)
    file = cache(lambda kind: small_checkpoints.write_file(build(kind), models / f"{kind}.safetensors"))
    return file, cache(lambda kind: small_checkpoints.write_folder(build(kind), models / kind))


def _print_table(engine: Engine, file: Paths, folder: Paths) -> None:
    print("| | standard deviation | from a single file | from a folder |\n|---|---|---|---|")
    for name, case in parity.CASES.items():
        expected = parity.of_diffusers(case, folder)
        found = [parity.of_engine(case, engine, _loading(paths)) for paths in (file, folder)]
        differences = " | ".join(f"{float((latent - expected).abs().max()):.1e}" for latent in found)
        print(f"| {name} | {float(expected.std()):.2f} | {differences} |", flush=True)


def _loading(paths: Paths) -> Callable[[str], Weights]:
    return lambda kind: load.load(paths(kind), device(CPU), torch.float32)


if __name__ == "__main__":
    main()
