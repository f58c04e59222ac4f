"""The cost of adapters by rows, and what they save: pictures with other adapters each, together or a set at a time.

Adapters are drawn at random for the layers that most published ones change, with their text encoders. The pictures of
one set at a time are what a program can render together that patches the weights for one set and takes them out again;
its patching is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bench import company
from bench.company import CHECKPOINT, NAME, Job
from shared.params.render import RenderParams
from shared.prompts import extra_networks
from tests.support import low_rank
from worker.engine.answers.denoising import denoise
from worker.engine.architectures.conditioning import Adapter, Applied
from worker.engine.architectures.weights import Weights
from worker.engine.devices import default_dtype, device
from worker.engine.images.arrays import Pixels
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.requests import Denoise, Term

SETS: Final = (
    "", "<lora:0:0.8>", "<lora:1:-0.5>", "<lora:2:1.5>", "<lora:3:te=0.5:unet=1>",
    "<lora:0:0.4> <lora:4:0.6> <lora:5:1>",
    "<lora:6:0@0,1@0.5>", "<lora:1:0.3> <lora:2:0.3> <lora:7:-0.2>",
)  # fmt: skip
"""The tags of each set: none, one or three adapters, and weights from -0.5 to 1.5."""
ADAPTERS: Final = 8
PROMPTS: Final = ("a red sailboat on the sea at sunset", "a palm in the desert at noon", "snow on mountains at night")
RANKS: Final = (8, 32, 128)
ROWS: Final = 8  # of a call


def drawn(weights: Weights, rank: int, count: int = ADAPTERS) -> dict[str, Adapter]:
    """Return random adapters by the keys of their tags."""
    return {f"lora:{number}": low_rank.drawn(weights, number, rank) for number in range(count)}


def jobs(count: int, adapters: dict[str, Adapter], *, side: int, steps: int) -> list[Job]:
    """Return pictures of all sets in turn, alike in everything else but prompt, CFG and seed."""
    sampling = {"checkpoint": NAME, "width": side, "height": side, "steps": steps, "sampler": "DPM++ 2M"}
    texts = [f"{prompt} {tags}" for prompt, tags in islice(zip(cycle(PROMPTS), cycle(SETS), strict=False), count)]
    params = [
        RenderParams.model_validate({**sampling, "prompt": text, "seed": number, "cfg_scale": 4.0 + number % 5})
        for number, text in enumerate(texts)
    ]
    return [Job("text to image", one, adapters=adapters) for one in params]


def without(mixed: Sequence[Job]) -> list[Job]:
    """Return the same pictures without adapters."""
    return [
        Job(job.kind, job.params.model_copy(update={"prompt": extra_networks.without(job.params.prompt)}))
        for job in mixed
    ]


def one_set_at_a_time(engine: Engine, weights: Weights, mixed: Sequence[Job], in_flight: int) -> list[Pixels]:
    """Return the pictures of `mixed`, of which only those of one set are in flight together."""
    pictures: dict[int, Pixels] = {}
    for first in range(len(SETS)):
        places = range(first, len(mixed), len(SETS))
        of_set = company.together(engine, {NAME: weights}, [mixed[place] for place in places], in_flight)
        pictures.update(zip(places, of_set, strict=True))
    return [pictures[place] for place in range(len(mixed))]


def call_seconds(weights: Weights, sets: Sequence[tuple[Applied, ...]], side: int, times: int = 5) -> float:
    """Return the median time of a call of the U-Net with a row for each of `sets`."""
    blank = weights.architecture.blank(weights.unet)
    terms = tuple(Term(1 / len(sets), blank.adapted(one)) for one in sets)
    cell = weights.latent.cell
    x = torch.randn(weights.latent.channels, side // cell, side // cell, device=weights.device.torch)
    call = partial(denoise, [Denoise(weights, x, 3.0, terms, 1, 1)], is_exact=False)
    return statistics.median(timed(call) for _ in range(times + 2))


def timed(call: Callable[[], object]) -> float:
    """Return how many seconds `call` takes."""
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def costs(weights: Weights, side: int) -> str:
    """Return a table of what a call of ROWS rows costs beside one without adapters."""
    none = call_seconds(weights, [()] * ROWS, side)
    lines = ["| rank | one adapter | one for each two rows |", "| --- | --- | --- |"]
    for rank in RANKS:
        adapters = [Applied(one, 1.0) for one in drawn(weights, rank, ROWS // 2).values()]
        shared = call_seconds(weights, [(adapters[0],)] * ROWS, side)
        own = call_seconds(weights, [(one,) for one in adapters for _ in range(2)], side)
        lines.append(f"| {rank} | {shared / none:.2f} | {own / none:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Print both tables; end with 1 if company changed a picture."""
    options = _parsed()
    card = device(options.card)
    weights = load.load(options.checkpoint, card, default_dtype(card, "auto"))
    mixed = jobs(options.pictures, drawn(weights, options.rank), side=weights.native_size, steps=options.steps)
    engine = Engine(card)
    engine.start()
    company.together(engine, {NAME: weights}, mixed[: len(SETS)], options.in_flight)  # warms up
    ratios = []
    for number in range(options.rounds):
        ways = {
            "together": partial(company.together, engine, {NAME: weights}, mixed, options.in_flight),
            "a set at a time": partial(one_set_at_a_time, engine, weights, mixed, options.in_flight),
        }
        made = {}
        for way in [*ways] if number % 2 else [*reversed(ways)]:
            with company.rows_counted([weights]) as rows:
                seconds, made[way] = _rendered(ways[way])
            ratios.append((way, seconds))
            print(f"{way}: {seconds:.1f} s, {len(rows)} calls of {statistics.mean(rows):.2f} rows", flush=True)
        changed = sum(not np.array_equal(*pair) for pair in zip(*made.values(), strict=True))
        print(f"{changed} of {len(mixed)} pictures differ")
    engine.stop()
    medians = {way: statistics.median(seconds for of, seconds in ratios if of == way) for way, _ in ratios}
    print(f"together {medians['a set at a time'] / medians['together']:.2f} times as fast\n")
    print(costs(weights, weights.native_size))
    raise SystemExit(1 if changed and card.kind == "cpu" else 0)


def _rendered(way: Callable[[], list[Pixels]]) -> tuple[float, list[Pixels]]:
    started = time.perf_counter()
    pictures = way()
    return time.perf_counter() - started, pictures


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--card", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
