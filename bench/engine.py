"""`python -m bench.engine`: the engine with eight pictures in flight, and with one, against a plain loop over the same.

64 pictures of 128x128, 20 steps of Euler a, CFG 7, float32, one thread (set OMP_NUM_THREADS=1); medians of alternating
runs. The farm's own figures, with everything around the engine, are `bench.overhead`'s.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import torch

from bench import plain
from shared.params import RenderParams
from worker.engine import checkpoints
from worker.engine.devices import device
from worker.engine.engine import Engine
from worker.engine.pipelines import Kit, Picture, text_to_image
from worker.engine.weights import Weights

PROMPT: Final = "a painting of the desert at sunset, pyramids, sun"


def render(engine: Engine, weights: Weights, seed: int) -> Picture:
    """Return the picture of `seed`, as a slot of a worker asks for it."""
    params = RenderParams(
        prompt=PROMPT, checkpoint="bench", width=plain.SIDE, height=plain.SIDE, steps=plain.STEPS, seed=seed
    )
    picture: Picture = engine.render(text_to_image(params, Kit(weights))).result()
    return picture


def in_flight(engine: Engine, weights: Weights, slots: int, pictures: int) -> None:
    """Render the pictures, `slots` of them at a time."""
    with ThreadPoolExecutor(slots) as pool:
        list(pool.map(lambda seed: render(engine, weights, seed), range(pictures)))


def seconds(measured: Callable[[], object]) -> float:
    """Return how long `measured` takes."""
    start = time.perf_counter()
    measured()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    networks = plain.load(options.checkpoint)
    weights = checkpoints.load(options.checkpoint, device("cpu"), torch.float32)
    engine = Engine(weights.device)
    engine.start()
    ways: dict[str, Callable[[], object]] = {
        "plain loop": lambda: [plain.picture(networks, PROMPT, seed) for seed in range(options.pictures)],
        "8 in flight": lambda: in_flight(engine, weights, 8, options.pictures),
        "1 in flight": lambda: in_flight(engine, weights, 1, options.pictures),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.runs):
        for name, way in ways.items():
            taken[name].append(seconds(way))
    engine.stop()
    for name, times in taken.items():
        ratios = [own / base for own, base in zip(times, taken["plain loop"], strict=True)]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name:12} median {statistics.median(times):7.2f} s, of plain {statistics.median(ratios):.2f} ({each})")


if __name__ == "__main__":
    main()
