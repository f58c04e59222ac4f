"""`python -m bench.simulate`: the real claim policy on a virtual clock, against first come and affinity alone.

A thousand cards, 60,000 images of 1 to 4 s queued at once, 300 checkpoints of which the n-th is asked for in proportion
to n^-0.9 (Zipf), twenty owners, of which the n-th asks for 1/n as much as the first. One card in ten joins late, one in
twenty dies on the way.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import matplotlib as mpl
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.virtual_farm import Image, Outcome, Rank, Simulation, World
from shared.queue import policy
from shared.queue.policy import Farm, Lane, Lanes, Worker

OWNERS: Final = 20
CHECKPOINTS: Final = 300
ZIPF: Final = 0.9
LATE: Final = 0.1
MORTAL: Final = 0.05
LOADS: Final = (0.1, 5.0, 15.0)


def world(seed: int, images: int, cards: int, load_seconds: float) -> World:
    """Return a world drawn from `seed`; `load_seconds` does not change the rest."""
    draw = random.Random(seed)
    owners = draw.choices(range(OWNERS), [1 / (place + 1) for place in range(OWNERS)], k=images)
    checkpoints = draw.choices(range(CHECKPOINTS), [(place + 1) ** -ZIPF for place in range(CHECKPOINTS)], k=images)
    todo = tuple(
        Image(number, f"owner {owner}", f"{checkpoint:064}", draw.uniform(1, 4))
        for number, (owner, checkpoint) in enumerate(zip(owners, checkpoints, strict=True))
    )
    span = sum(image.seconds for image in todo) / cards
    return World(todo, tuple(_life(draw, span) for _ in range(cards)), load_seconds)


def _life(draw: random.Random, span: float) -> tuple[float, float]:
    joins = draw.uniform(0, span / 4) if draw.random() < LATE else 0.0
    return joins, draw.uniform(joins, span) if draw.random() < MORTAL else float("inf")


def first_come(lanes: Lanes, farm: Farm, me: Worker) -> Iterator[Lane]:
    """Yield the oldest first, without regard to owners and resident checkpoints."""
    del farm
    yield from _by_age(lanes, me.pools[0])


def affinity_alone(lanes: Lanes, farm: Farm, me: Worker) -> Iterator[Lane]:
    """Yield resident lanes, then the oldest first, without regard to owners."""
    del farm
    yield from (lane for checkpoint in me.resident for lane in _by_checkpoint(lanes, me.pools[0]).get(checkpoint, ()))
    yield from _by_age(lanes, me.pools[0])


@lru_cache(maxsize=1)
def _by_age(lanes: Lanes, pool: str) -> Sequence[Lane]:
    return sorted(lanes.all_of(pool), key=lambda lane: lane.head)


@lru_cache(maxsize=1)
def _by_checkpoint(lanes: Lanes, pool: str) -> Mapping[str, Sequence[Lane]]:
    found: dict[str, list[Lane]] = {}
    for lane in _by_age(lanes, pool):
        found.setdefault(lane.checkpoint, []).append(lane)
    return found


WAYS: Final[dict[str, Rank]] = {
    "first come": first_come,
    "affinity alone": affinity_alone,
    "policy": policy.rank,
}


def row(load_seconds: float, name: str, todo: World, outcome: Outcome) -> Iterable[str]:
    """Return the cells of one line of the table."""
    waits, decisions = (statistics.quantiles(times, n=100) for times in (outcome.waits, outcome.decisions))
    return (
        f"{load_seconds:g}",
        name,
        f"{outcome.makespan:.1f}",
        f"{outcome.makespan / todo.lower_bound:.3f}",
        f"{outcome.loads:,}",
        f"{waits[49]:.0f} / {waits[98]:.0f} / {max(outcome.waits):.0f}",
        f"{statistics.mean(outcome.fairness):.3f}",
        f"{outcome.left_alone:.1f}",
        f"{1000 * decisions[49]:.2f} / {1000 * decisions[98]:.2f}",
    )


def draw(outcomes: dict[str, Outcome], file: Path) -> None:
    """Draw what was started, and what was loaded, over time."""
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after its backend was chosen

    figure, (started, loaded) = plt.subplots(2, sharex=True, figsize=(8, 6), layout="constrained")
    for name, outcome in outcomes.items():
        started.plot(sorted(outcome.waits), range(1, len(outcome.waits) + 1), label=name)
        loaded.plot(sorted(outcome.loads_at), range(1, len(outcome.loads_at) + 1), label=name)
    started.set_ylabel("images started")
    loaded.set(ylabel="checkpoints loaded", xlabel="seconds", yscale="log")
    started.legend()
    compression = {"pil_kwargs": {"lossless": True, "method": 6}} if file.suffix == ".webp" else {}
    figure.savefig(file, dpi=100, **compression)


def main() -> None:
    """Run all ways over all loads; print the table and draw the plot of the middle load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--cards", type=int, default=1_000)
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="seconds that a checkpoint takes to load")
    parser.add_argument("--plot", type=Path, default=Path("bench/simulation.webp"))
    options = parser.parse_args()
    table = Table(
        "load s",
        "way",
        "makespan s",
        "of bound",
        "loads",
        "wait p50/p99/max s",
        "Jain",
        "left alone s",
        "decision p50/p99 ms",
    )
    drawn: dict[str, Outcome] = {}
    for load_seconds in track(options.loads, "simulating"):
        todo = world(options.seed, options.images, options.cards, load_seconds)
        for name, rank in WAYS.items():
            outcome = Simulation(todo, rank).run()
            table.add_row(*row(load_seconds, name, todo, outcome))
            if load_seconds == sorted(options.loads)[len(options.loads) // 2]:
                drawn[name] = outcome
    draw(drawn, options.plot)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
