"""When an image may start, from what the workers rendered lately, and how far off such estimates were.

The owners share the workers evenly. So before an image starts, the images of its owner that stand before it are
rendered, and at most as much work of each other owner. Urgent images are rendered before all others.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from shared.queue.policy import Lane, Worker
from shared.queue.snapshot import COUNTED, Snapshot

_FEWEST: Final = 3  # estimates without which no error is given
_MOMENT_SECONDS: Final = 2.0  # shorter waits say nothing about estimates
_FRACTIONS: Final = {
    0.07: "hardly off",
    0.15: "off by a tenth",
    0.225: "off by a fifth",
    0.29: "off by a quarter",
    0.42: "off by a third",
    0.58: "off by a half",
    0.71: "off by two thirds",
}


class Estimate(NamedTuple):
    """An image whose start is estimated, and the work of its owner's images before it."""

    lane: Lane
    ahead_cost: int


class Struck(NamedTuple):
    """Images that a worker died of: each worker runs one of them at a time."""

    ahead: int = 0  # of the same owner, before the one whose start is estimated
    ahead_cost: int = 0
    running: Mapping[str, float] = MappingProxyType({})  # worker -> for how many seconds it has run one


class Rendered(NamedTuple):
    """An image that a worker has rendered; times in seconds on the database's clock."""

    worker: str
    cost: int
    started_at: float
    ended_at: float


def rates(rendered: Iterable[Rendered]) -> dict[str, float]:
    """Return the work that each worker did in a second in which it rendered."""
    by_worker: dict[str, list[Rendered]] = defaultdict(list)
    for image in rendered:
        by_worker[image.worker].append(image)
    return {name: sum(image.cost for image in images) / _busy_seconds(images) for name, images in by_worker.items()}


def paces(rendered: Iterable[Rendered]) -> dict[str, float]:
    """Return the median of the seconds that each worker took for a unit of one image's work, beside other images."""
    by_worker: dict[str, list[float]] = defaultdict(list)
    for image in rendered:
        by_worker[image.worker].append((image.ended_at - image.started_at) / max(1, image.cost))
    return {name: statistics.median(found) for name, found in by_worker.items()}


def seconds_one_by_one(struck: Struck, ready: Sequence[Worker], cost: int, known: Mapping[str, float]) -> float | None:
    """Return in how many seconds one of `ready` starts a struck image that costs `cost`; None if no pace is known."""
    paces_here = [known[worker.name] for worker in ready if worker.name in known]
    if not paces_here:
        return None
    pace = statistics.fmean(paces_here)
    # The images that run are assumed to be like those that wait.
    whole = pace * (struck.ahead_cost / struck.ahead if struck.ahead else cost)
    free_at = [max(0.0, whole - struck.running[one.name]) if one.name in struck.running else 0.0 for one in ready]
    heapq.heapify(free_at)
    for _ in range(struck.ahead):
        heapq.heapreplace(free_at, free_at[0] + whole)
    return free_at[0]


def _busy_seconds(images: Sequence[Rendered]) -> float:
    """Return for how many seconds at least one of them ran."""
    busy, until = 0.0, -math.inf
    for image in sorted(images, key=lambda image: image.started_at):
        busy += max(0.0, image.ended_at - max(image.started_at, until))
        until = max(until, image.ended_at)
    return max(busy, 1e-3)


def seconds_until_start(
    estimate: Estimate, snapshot: Snapshot, ready: Sequence[Worker], known: Mapping[str, float]
) -> float | None:
    """Return in how many seconds a slot of `ready` is free for it; None if no rate is known."""
    rates_here = [known[worker.name] for worker in ready if worker.name in known]
    if not rates_here:
        return None
    # A worker that has rendered nothing yet is assumed to be as fast as the others.
    rate = statistics.fmean(rates_here) * len(ready)
    pools = {pool for worker in ready for pool in worker.pools}
    return (_work_before(estimate, snapshot, pools) + estimate.lane.cost) / rate


def seconds_of_all(work: int, ready: Sequence[Worker], known: Mapping[str, float]) -> float | None:
    """Return in how many seconds `ready` workers do this work together, alone; None if no rate is known."""
    rates_here = [known[worker.name] for worker in ready if worker.name in known]
    return work / (statistics.fmean(rates_here) * len(ready)) if rates_here else None


def _work_before(estimate: Estimate, snapshot: Snapshot, pools: Collection[str]) -> float:
    mine, farm = estimate.lane, snapshot.farm
    urgent, waiting = 0.0, defaultdict[str, float](float)
    for lane in snapshot.lanes:
        if lane.owner == mine.owner or lane.pool not in pools:
            continue
        work = lane.cost * lane.queued
        if lane.urgent and not mine.urgent:
            urgent += work
        elif lane.urgent == mine.urgent:
            waiting[lane.owner] += work if lane.queued < COUNTED else math.inf  # there are more than were counted
    level = estimate.ahead_cost + farm.owner(mine.owner).running
    shares = (min(work, max(0, level - farm.owner(owner).running)) for owner, work in waiting.items())
    return estimate.ahead_cost + urgent + sum(shares)


def error(estimated: float, waited: float) -> float | None:
    """Return by which share of the longer of the two an estimate was off; None if both are only a moment."""
    longest = max(estimated, waited)
    return abs(estimated - waited) / longest if longest >= _MOMENT_SECONDS else None


def typical(errors: Sequence[float]) -> float | None:
    """Return the median of past errors; None if there are too few."""
    return statistics.median(errors) if len(errors) >= _FEWEST else None


def off_by(share: float) -> str:
    """`0.33` -> `off by a third`."""
    return next((words for most, words in _FRACTIONS.items() if share <= most), "off by more than two thirds")
