"""`python -m bench.queue`: what one image costs the queue, against bare Celery, RQ and procrastinate in the same run.

Two workers each, on one PostgreSQL that syncs to disk and one Redis; ours are the farm's workers with a card that
renders nothing. Rounds alternate; a round lets workers loose on a queue that was filled while they stood still. Then:
from submission to the first step on an idle farm, claims from a long queue, and where the time of an image goes.
The peers live in an environment of their own, which is made in the folder `--peers` (it needs an index of packages).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench import queue_claims, queue_start
from bench.queue_ways import Round, Way, bare_celery, farm, peers, procrastinate, rate, rq, working
from bench.queue_worker import WAITING
from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.db import migrate
from shared.db import sessions as database
from shared.db.sessions import Sessions

MODELS: Final = Path(__file__).parents[1] / "models"
FARM: Final = "the farm"
STORING: Final = "the farm, storing"
TARGETS: Final = {"bare Celery": 0.5, "RQ": 5.0, "procrastinate": 0.9}
WARM_UP: Final = 100
FEWEST: Final = 100  # lifecycles of a round
MOST: Final = 9_000  # a queue of Redis holds no more tickets
LAB_CLAIM_MILLISECONDS: Final = (3.8, 13.0)  # p50, p99 of the prototype, on two other processors
ORDER: Final = (
    WAITING, "tickets", "snapshot, rank", "claim", "note the claim", "events", "render", "encode", "put", "finish",
    "rest of the slot",
)  # fmt: skip

console = Console(width=120)


@contextmanager
def servers(home: Path) -> Iterator[tuple[Sessions, list[int]]]:
    """Run PostgreSQL, syncing as a farm's does, and Redis; yield sessions on the database, and their processes."""
    with Servers(home, durable=True) as running:
        migrate.upgrade(embedded_addresses.database_url(home))
        engine = database.connect(embedded_addresses.database_url(home), application="bench")
        yield database.sessions(engine), [pid for pid in running.pids().values() if pid]
        engine.dispose()


def environ(home: Path, **more: str) -> dict[str, str]:
    """Return the settings of the farm under test."""
    (home / "models").mkdir(exist_ok=True)
    return {
        "FARM_HOME": str(home), "FARM_MODELS": str(home / "models"), "FARM_PORT": "0", "FARM_LOG_LEVEL": "warning",
        "OMP_NUM_THREADS": "1",
    } | more  # fmt: skip


def rates(ways: list[Way], rounds: int, seconds: float, pids: list[int]) -> dict[str, list[Round]]:
    """Return what each way came to, round after round in turn."""
    found: dict[str, list[Round]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            found[way.name].append(_round(way, found[way.name], seconds, pids))
            console.print(f"{way.name}: {found[way.name][-1]}")
    return found


def _round(way: Way, before: list[Round], seconds: float, pids: list[int]) -> Round:
    """Measure one round that takes about so long, by the rates before it."""
    with working(way) as processes:
        known = rate(way, processes, 0, WARM_UP).a_second
        number = round(max(known, *(one.a_second for one in before)) * seconds if before else known * seconds)
        return rate(way, processes, WARM_UP, min(MOST, max(FEWEST, number)), pids)


def ratio_table(found: dict[str, list[Round]]) -> Table:
    """Return the table of rates, and of the farm's ratios to the others in the same round, with targets."""
    table = Table(title="Lifecycles, 2 workers")
    for heading in ("", "a second", "ours of it", "each round's", "processor ms", "ours of it", "target", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for name, own in found.items():
        ratios = [ours.a_second / theirs.a_second for ours, theirs in zip(found[FARM], own, strict=True)]
        work = [theirs.processor / ours.processor for ours, theirs in zip(found[FARM], own, strict=True)]
        workers, others = (1000 * statistics.median(getattr(one, of) for one in own) for of in ("workers", "servers"))
        target = TARGETS.get(name)
        table.add_row(
            name,
            f"{statistics.median(one.a_second for one in own):,.0f}",
            f"{statistics.median(ratios):.2f}x",
            " ".join(f"{ratio:.2f}" for ratio in ratios),
            f"{workers:.1f} + {others:.1f}",
            f"{statistics.median(work):.2f}x",
            f"{target:g}x" if target else "",
            ("met" if statistics.median(ratios) >= target else "not met") if target else "",
        )
    return table


def breakdown(home: Path, sessions: Sessions, seconds: float) -> Table:
    """Return where the time of a lifecycle goes, from a round of its own in which the clocks run."""
    timings = home / "timings"
    way = farm(STORING, sessions, home, environ(home, BENCH_TIMINGS=str(timings)))
    with working(way) as processes:
        known = rate(way, processes, 0, WARM_UP)
        rate(way, processes, WARM_UP, round(known.a_second * seconds))
    written = [json.loads(file.read_text()) for file in home.glob("timings.*")]
    lifecycles = sum(one["spent"]["render"][0] for one in written)
    table = Table("", "times", "ms", "ms of its processor", title=f"Where the time goes, of {lifecycles} lifecycles")
    spent = {seam: [sum(one["spent"].get(seam, [0, 0, 0])[k] for one in written) for k in range(3)] for seam in ORDER}
    for seam, (times, wall, processor) in spent.items():
        per = 1000 / lifecycles
        table.add_row(seam, f"{times / lifecycles:.2f}", f"{wall * per:.2f}", f"{processor * per:.2f}")
    others = sum(one["process"] for one in written) - sum(processor for _, _, processor in spent.values())
    table.add_row("other threads", "", "", f"{1000 * others / lifecycles:.2f}")
    return table


def percentiles(seconds: list[float]) -> str:
    """Return p50 and p99 in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return f"{1000 * cuts[49]:.1f} / {1000 * cuts[98]:.1f}"


def first_step(home: Path, sessions: Sessions, pictures: int) -> str:
    """Return p50 and p99 from submission to the first step."""
    for file in MODELS.glob("*/scenes-v1.*"):
        folder = home / "models" / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).symlink_to(file)
    terms = environ(home, BENCH_STARTS=str(home / "starts"))
    return percentiles(queue_start.measure(farm(FARM, sessions, home, terms), terms, home / "starts", pictures))


def claims(home: Path, sessions: Sessions, images: int, claimers: int, seconds: float) -> Table:
    """Return the table of claims from a queue of so many images."""
    farm(FARM, sessions, home, {}).clear()
    queue_claims.fill(sessions, images)
    alone, decided, a_second = queue_claims.measure(
        embedded_addresses.database_url(home), embedded_addresses.redis_url(home), claimers, seconds
    )
    table = Table("", "p50 / p99 ms", title=f"{claimers} claimers, {images:,} queued: {a_second:,.0f} claims a second")
    table.add_row("claim", percentiles(alone))
    table.add_row("with snapshot and decision", percentiles(decided))
    table.add_row("prototype, two processors", " / ".join(map(str, LAB_CLAIM_MILLISECONDS)))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of a round")
    parser.add_argument("--pictures", type=int, default=200, help="submitted one by one to the idle farm")
    parser.add_argument("--queued", type=int, default=50_000)
    parser.add_argument("--claimers", type=int, default=8)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "stepfarm-bench")
    parser.add_argument("--only", nargs="+", choices=["rates", "time", "start", "claims"])
    options = parser.parse_args()
    parts = options.only or ["rates", "time", "start", "claims"]
    with tempfile.TemporaryDirectory(prefix="farm-") as folder:
        home = Path(folder)
        with servers(home) as (sessions, pids):
            if "rates" in parts:
                ways = _ways(home, sessions, options.peers)
                console.print(ratio_table(rates(ways, options.rounds, options.seconds, pids)))
            if "time" in parts:
                console.print(breakdown(home, sessions, options.seconds))
            if "start" in parts:
                console.print(f"Submission over HTTP to first step: {first_step(home, sessions, options.pictures)} ms")
            if "claims" in parts:
                console.print(claims(home, sessions, options.queued, options.claimers, options.seconds))


def _ways(home: Path, sessions: Sessions, peers_folder: Path) -> list[Way]:
    python = peers(peers_folder)
    return [
        farm(FARM, sessions, home, environ(home, BENCH_PUT="0")),
        farm(STORING, sessions, home, environ(home)),
        bare_celery(home),
        procrastinate(home, python),
        rq(home, python, forks=True),
        rq(home, python, forks=False),
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
