"""Every sampler with every schedule that it takes, on the demo checkpoint: model calls, and what the judge sees.

Each pair renders the same prompts; all pictures share the engine, a number of them in flight. A picture whose numbers
are not finite, or that takes other model calls than planned, ends the run.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.media.arrays import Pixels
from shared.params.render import RenderParams
from shared.params.samplers import AUTOMATIC, SAMPLERS, SCHEDULES, Sampler
from tools.demo_checkpoint import asking, sheets
from tools.demo_checkpoint.judging import Judge, adherence
from worker.engine.architectures.weights import Weights
from worker.engine.devices import default_dtype, device
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.sampling import schedules
from worker.engine.sampling.registry import plan

ROOT: Final = Path(__file__).parents[1]
CHECKPOINT: Final = ROOT / "models" / "Stable-diffusion" / "scenes-v1.safetensors"
SIDE: Final = 128  # pixels
SEED: Final = 1000

Pair = tuple[str, str]  # sampler and schedule


@dataclass(frozen=True, eq=False)
class Outcome:
    """The results of a pair."""

    calls: int  # the most that a picture took
    pictures: NDArray[np.uint8]  # [prompts, h, w, 3]


def pairs() -> list[Pair]:
    """Return each sampler with each schedule that it takes; `automatic` only where no other name says the same."""
    return [
        (facts.name, schedule) for facts in SAMPLERS.values() for schedule in SCHEDULES if schedule in _named(facts)
    ]


def _named(facts: Sampler) -> set[str]:
    meant = {facts.schedule(asked) for asked in facts.schedules}
    return {schedule if schedule in SCHEDULES else AUTOMATIC for schedule in meant}


def outcomes(engine: Engine, weights: Weights, asked: Sequence[RenderParams], in_flight: int) -> dict[Pair, Outcome]:
    """Return the results of every pair. Raises RenderError for a failed picture."""
    done = count(1)

    def made(params: RenderParams) -> tuple[Pixels, int]:
        result = picture(engine, weights, params)
        print(f"\r{next(done)} of {len(asked)}", end="", file=sys.stderr, flush=True)
        return result

    with ThreadPoolExecutor(in_flight) as slots:
        found = list(slots.map(made, asked))
    by_pair: dict[Pair, list[tuple[Pixels, int]]] = {}
    for params, one in zip(asked, found, strict=True):
        by_pair.setdefault((params.sampler, params.schedule), []).append(one)
    return {
        pair: Outcome(max(calls for _, calls in ones), np.stack([pixels for pixels, _ in ones]))
        for pair, ones in by_pair.items()
    }


def picture(engine: Engine, weights: Weights, params: RenderParams) -> tuple[Pixels, int]:
    """Return a picture and the model calls that it took, which are those planned unless the sampler is adaptive."""
    calls = Counter[str]()
    pixels: Pixels = engine.render(render(params, Kit(weights)), on_step=lambda _: calls.update(made=1)).result()
    sigmas = schedules.sigmas(
        weights.sigmas, sampler=params.sampler, schedule=params.schedule, steps=params.steps, options=params.sampling
    )
    planned = plan(params.sampler, sigmas, params.sampling).calls
    if calls["made"] != planned and not SAMPLERS[params.sampler].is_adaptive:
        raise SystemExit(f"{params.sampler}, {params.schedule}: {calls['made']} calls, not {planned}")
    return pixels, calls["made"]


def table(found: dict[Pair, Outcome], wanted: Sequence[frozenset[str]]) -> str:
    """Return the outcomes as Markdown: of each pair the judge's adherence in per cent, and the model calls."""
    judge = Judge.load()
    lines = [f"| | {' | '.join(SCHEDULES.values())} |", "| --- |" + " --- |" * len(SCHEDULES)]
    for facts in SAMPLERS.values():
        cells = []
        for schedule in SCHEDULES:
            outcome = found.get((facts.name, schedule))
            if schedule == AUTOMATIC and outcome is None:
                cells.append(f"= {SCHEDULES[facts.automatic]}")
            elif outcome is None:
                cells.append("")
            else:
                cells.append(f"{100 * adherence(judge.of(outcome.pictures), wanted):.0f} ({outcome.calls})")
        lines.append(f"| {facts.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sheet(found: dict[Pair, Outcome], path: Path) -> None:
    """Write a contact sheet: a row for each sampler, the first prompt's picture by each schedule that it takes."""
    rows = [
        (
            f"{name}: {', '.join(SCHEDULES[schedule] for sampler, schedule in found if sampler == name)}",
            np.stack([outcome.pictures[0] for (sampler, _), outcome in found.items() if sampler == name]),
        )
        for name in SAMPLERS
    ]
    sheets.write_rows(rows, path)


def main() -> None:
    """Render every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--prompts", type=int, default=4, help="how many prompts each pair renders")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--card", default="cpu", help="cpu, or cuda:0")
    parser.add_argument("--precision", default="auto", help="float32, float16, bfloat16; auto: float16 on a card")
    parser.add_argument("--sheet", type=Path, default=ROOT / "bench" / "parity.webp")
    options = parser.parse_args()
    card = device(options.card)
    weights = load.load(options.checkpoint, card, default_dtype(card, options.precision))
    asked = asking.prompts(options.prompts)
    engine = Engine(weights.device)
    engine.start()
    found = outcomes(
        engine,
        weights,
        [
            RenderParams(
                prompt=one.text, checkpoint="demo", sampler=sampler, schedule=schedule, steps=options.steps,
                width=SIDE, height=SIDE, seed=SEED + number,
            )
            for sampler, schedule in pairs()
            for number, one in enumerate(asked)
        ],
        options.in_flight,
    )  # fmt: skip
    engine.stop()
    print(table(found, [one.said for one in asked]))
    sheet(found, options.sheet)


if __name__ == "__main__":
    main()
