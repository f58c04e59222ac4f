"""Pictures with other adapters and control nets each: what it saves that they share calls, and what adapters cost.

Random adapters for the layers that most published ones change, with their text encoders, and two random control nets.
The same pictures are rendered in three ways:

- together: sets of all kinds in flight, each row with its own adapters; nothing is merged;
- as peers do: set after set, patched into the weights and taken out again, a picture at a time;
- a set at a time: patched likewise, and all pictures of a set share calls, which no peer does that gives each its own
  prompt and guidance.

Then each picture is rendered alone by rows, and has to be identical to the one in company.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from bench import company, ranks
from bench.company import CHECKPOINT, NAME, Job
from shared.media.arrays import Pixels
from shared.params.controlnet import ControlUnit
from shared.params.render import RenderParams
from shared.prompts import extra_networks
from shared.prompts.adapters import used
from tests.support import control_nets, low_rank
from tests.support.conditioned import with_empty_caches
from worker.engine.adapters import control_nets as loading
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.adapters.low_rank import LowRank
from worker.engine.architectures.weights import Weights
from worker.engine.devices import default_dtype, device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import ControlInput
from worker.engine.row_limits import RowLimits

SETS: Final = (
    "", "<lora:0:0.8>", "<lora:1:-0.5>", "<lora:2:1.5>", "<lora:3:te=0.5:unet=1>",
    "<lora:0:0.4> <lora:4:0.6> <lora:5:1>",
    "<lora:6:0@0,1@0.5>", "<lora:1:0.3> <lora:2:0.3> <lora:7:-0.2>",
)  # fmt: skip
"""The tags of each set: none, one or three adapters, and weights from -0.5 to 1.5."""
ADAPTERS: Final = 8
NETS: Final = ((), (0,), (), (1,), (), (0, 1), ())
"""The control nets of each picture in turn."""
PROMPTS: Final = ("a red sailboat on the sea at sunset", "a palm in the desert at noon", "snow on mountains at night")
MEASURING_SECONDS: Final = 60.0  # at most, before the clock starts: a farm remembers what it has measured


@dataclass(frozen=True)
class Way:
    """How long one way of rendering the pictures took, and what its calls of the U-Net held."""

    wall: float  # seconds by the clock
    cores: float  # seconds of the host's cores, which other work beside it changes less
    rows: list[int]  # of each call
    patching: float  # seconds by the clock


def drawn(weights: Weights, rank: int, count: int = ADAPTERS) -> dict[str, LowRank]:
    """Return random adapters by the keys of their tags."""
    return {f"lora:{number}": low_rank.drawn(weights, number, rank) for number in range(count)}


def nets(weights: Weights, folder: Path) -> list[ControlNet]:
    """Return two random control nets for the U-Net of `weights`, which are written to `folder` first."""
    small: Any = SimpleNamespace(unet=weights.unet)
    paths = [control_nets.write(control_nets.build(small, seed), folder / f"net-{seed}") for seed in range(2)]
    return [loading.load(path, weights.device, weights.dtype) for path in paths]


def jobs(
    count: int, adapters: dict[str, LowRank], controlled: Sequence[ControlNet] = (), *, side: int, steps: int
) -> list[Job]:
    """Return pictures of all sets in turn, alike in everything else but prompt, CFG, seed and control nets."""
    sampling = {"checkpoint": NAME, "width": side, "height": side, "steps": steps, "sampler": "DPM++ 2M"}
    texts = [f"{prompt} {tags}" for prompt, tags in islice(zip(cycle(PROMPTS), cycle(SETS), strict=False), count)]
    params = [
        RenderParams.model_validate({**sampling, "prompt": text, "seed": number, "cfg_scale": 4.0 + number % 5})
        for number, text in enumerate(texts)
    ]
    controls = [
        tuple(_control(controlled[net], number, side) for net in NETS[number % len(NETS)]) if controlled else ()
        for number in range(count)
    ]
    return [
        Job("text to image", one, adapters=adapters, controls=of_one)
        for one, of_one in zip(params, controls, strict=True)
    ]


def _control(net: ControlNet, seed: int, side: int) -> ControlInput:
    picture = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return ControlInput(ControlUnit(model=net.name, weight=0.5, end=0.8), net, picture)


def without(mixed: Sequence[Job]) -> list[Job]:
    """Return the same pictures without adapters."""
    return [
        replace(
            job,
            params=job.params.model_copy(update={"prompt": extra_networks.without(job.params.prompt)}),
            adapters={},
        )
        for job in mixed
    ]


def set_after_set(
    engine: Engine, weights: Weights, mixed: Sequence[Job], in_flight: int, patching: list[float]
) -> list[Pixels]:
    """Return the pictures of `mixed`, set after set, each set patched into the weights and taken out again.

    `patching` gets the seconds that it takes. A weight by step is patched as it is at the end.
    """
    pictures: dict[int, Pixels] = {}
    for first in range(len(SETS)):
        places = range(first, len(mixed), len(SETS))
        job, started = mixed[first], time.perf_counter()
        uses = [
            (job.adapters[use.key], use.text_encoder.start, use.unet.at(1.0, steps=job.params.steps))
            for use in used(job.params.prompt)
        ]
        with ranks.patched(weights, uses):  # type: ignore[arg-type]  # low-rank ones, all of them
            patched = time.perf_counter()
            of_set = [without([mixed[place]])[0] for place in places]
            made = company.together(engine, {NAME: with_empty_caches(weights)}, of_set, in_flight)
            ended = time.perf_counter()
        patching.append(time.perf_counter() - ended + patched - started)
        pictures.update(zip(places, made, strict=True))
    return [pictures[place] for place in range(len(mixed))]


def main() -> None:
    """Print both tables; end with 1 if company changed a picture."""
    options = _parsed()
    row_limits = RowLimits(seconds=MEASURING_SECONDS)
    card = replace(device(options.card), row_limits=row_limits)
    weights = load.load(options.checkpoint, card, default_dtype(card, "auto"))
    with tempfile.TemporaryDirectory() as folder:
        controlled = nets(weights, Path(folder))
    mixed = jobs(
        options.pictures, drawn(weights, options.rank), controlled, side=weights.native_size, steps=options.steps
    )
    engine = Engine(card, row_budget=options.rows)
    engine.start()
    changed = _throughput(engine, weights, mixed, options)
    engine.stop()
    print("\nA row, as a multiple of one without adapters in a call of eight, at the checkpoint's own widths:\n")
    print(ranks.table(weights, weights.native_size))
    print("\nThe same at widths of 320 and 640, at 256 x 256:\n")
    print(ranks.table(ranks.wide(weights, row_limits), 256), flush=True)
    raise SystemExit(1 if changed and card.kind == "cpu" else 0)


def _throughput(engine: Engine, weights: Weights, mixed: Sequence[Job], options: argparse.Namespace) -> int:
    """Print how long each way takes; return how many pictures company changed."""

    def together(of: Sequence[Job], in_flight: int, _: list[float]) -> list[Pixels]:
        return company.together(engine, {NAME: with_empty_caches(weights)}, of, in_flight)

    steps = {"steps": 3}
    warming = [replace(job, params=job.params.model_copy(update=steps)) for job in mixed[: options.in_flight]]
    for _ in range(4):  # measures how many rows round alike
        together(warming, options.in_flight, [])
    patched = partial(set_after_set, engine, weights)
    ways: dict[str, Callable[[list[float]], list[Pixels]]] = {
        "together": partial(together, mixed, options.in_flight),
        "as peers do": partial(patched, mixed, 1),
        "a set at a time": partial(patched, mixed, options.in_flight),
    }
    found: dict[str, list[Way]] = {name: [] for name in ways}
    made: list[Pixels] = []
    for number in range(options.rounds):
        for name in [*ways] if number % 2 == 0 else [*reversed(ways)]:
            way, pictures = _rendered(weights, ways[name])
            found[name].append(way)
            made = pictures if name == "together" else made
    alone, pictures = _rendered(weights, partial(together, mixed, 1))
    found["each alone, by rows"] = [alone]
    print(_table(found, len(mixed)), flush=True)
    changed = sum(not np.array_equal(*pair) for pair in zip(made, pictures, strict=True))
    print(f"\n{changed} of {len(mixed)} pictures are other than alone")
    return changed


def _rendered(weights: Weights, way: Callable[[list[float]], list[Pixels]]) -> tuple[Way, list[Pixels]]:
    patching: list[float] = []
    wall, cores = time.perf_counter(), time.process_time()
    with company.rows_counted([weights]) as rows:
        pictures = way(patching)
    return Way(time.perf_counter() - wall, time.process_time() - cores, rows, sum(patching)), pictures


def _table(found: dict[str, list[Way]], pictures: int) -> str:
    """Return medians; the last two columns are the seconds of each way, as multiples of those of the first one."""
    heads = (
        f"{pictures} pictures", "seconds", "core seconds", "patching", "U-Net calls", "rows a call", "of together",
        "of its core seconds",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    medians = {
        name: [statistics.median(getattr(way, field) for way in ways) for field in ("wall", "cores", "patching")]
        for name, ways in found.items()
    }
    first = next(iter(medians.values()))
    for name, (wall, cores, patching) in medians.items():
        rows = found[name][0].rows
        lines.append(
            f"| {name} | {wall:.1f} | {cores:.1f} | {patching:.2f} | {len(rows)} | {statistics.mean(rows):.2f} | "
            f"{wall / first[0]:.2f} | {cores / first[1]:.2f} |"
        )
    return "\n".join(lines)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--card", default="cpu", help="cpu or cuda:0")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, help="of a call at most; the card's own budget if not given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
