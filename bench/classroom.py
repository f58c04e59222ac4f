"""`python -m bench.classroom`: when a class has its pictures, by the real claim policy and by first come first served.

Thirty learners submit six images each in the same second, one after the other, on one card that carries four images at
once and takes eight seconds for each. In the second round another learner has submitted two hundred just before. The
clock is virtual: it takes a second.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.simulate import first_come
from bench.virtual_farm import Image, Outcome, Rank, Simulation, World
from shared.queue import policy

CHECKPOINT: Final = "c" * 64
EAGER: Final = "the eager one"
WAYS: Final[dict[str, tuple[Rank, int | None]]] = {
    "first come first served": (first_come, None),
    "the farm's policy": (policy.rank, None),
    "the policy, running=1": (policy.rank, 1),
}


def images(of: argparse.Namespace, eager: int) -> tuple[Image, ...]:
    """Return those of a class whose learners submit one after the other, behind `eager` images of one more."""
    owners = [EAGER] * eager + [f"learner {number:02}" for number in range(of.learners) for _ in range(of.images)]
    return tuple(Image(number, owner, CHECKPOINT, of.seconds) for number, owner in enumerate(owners))


def row(name: str, outcome: Outcome) -> Sequence[str]:
    """Return the cells of one line of the table: of the first and the last picture of each learner."""
    learners = [sorted(times) for owner, times in outcome.ended.items() if owner != EAGER]
    firsts, lasts = sorted(times[0] for times in learners), sorted(times[-1] for times in learners)
    cells = [f"{value:.0f}" for times in (firsts, lasts) for value in (times[0], statistics.median(times), times[-1])]
    eager = outcome.ended.get(EAGER)
    return (name, *cells, f"{max(eager):.0f}" if eager else "")


def main() -> None:
    """Run both rounds by all ways, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learners", type=int, default=30)
    parser.add_argument("--images", type=int, default=6, help="of each learner")
    parser.add_argument("--eager", type=int, default=200, help="images of the one who was first, in the second round")
    parser.add_argument("--slots", type=int, default=4, help="images that run at once")
    parser.add_argument("--seconds", type=float, default=8, help="that one image takes")
    options = parser.parse_args()
    for eager in (0, options.eager):
        table = Table("way", *(f"{which}, {of}" for which in ("first", "last") for of in ("least", "median", "most")))
        table.add_column("eager one's last")
        for name, (rank, most) in WAYS.items():
            todo = World(images(options, eager), ((0.0, float("inf")),) * options.slots, load_seconds=0.0, most=most)
            table.add_row(*row(name, Simulation(todo, rank).run()))
        table.title = f"seconds until a learner has a picture; {eager} images are ahead of the class"
        Console().print(table)


if __name__ == "__main__":
    main()
