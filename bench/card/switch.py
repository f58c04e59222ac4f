"""Part 5: how long a checkpoint takes to come, by itself and beside pictures, and what a resident one costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import torch

from bench import plain
from bench.card import clocks, files, machine, rendering
from bench.card.bench import Bench
from worker.engine import devices, transfers
from worker.engine.architectures.weights import Weights
from worker.engine.loading import load
from worker.engine.loading.converted import Converted
from worker.engine.loading.host_cache import HostCache
from worker.engine.loading.loader import Loader

BUSY_RATIO: Final = 2.0
LOAD_SECONDS: Final = 0.06  # of 2.1 GB over PCIe, from the host's memory
SWITCH_SECONDS: Final = 0.005


def run(bench: Bench) -> None:
    """Load idle, from the host's memory, beside pictures and by diffusers; then alternate between two residents."""
    first, second = (files.full(bench.setting, seed) for seed in (0, 1))
    loader = Loader(bench.card)
    loader.start()
    bench.now("a load by itself")
    weights = _load(bench, loader, first)
    idle = clocks.seconds(lambda: _load(bench, loader, second), bench.scale.repeats, warm=0)
    _compared(bench, idle, weights.bytes)
    bench.now("a load from the host's memory")
    keep = _from_memory(bench, loader, second, weights.bytes)
    bench.now("loads, an eviction and a copy for the host beside pictures")
    busy = _busy(bench, loader, weights, second, keep)
    bench.at_most(BUSY_RATIO, "load beside pictures, against idle", busy / idle, "times")
    bench.now("resident checkpoints in turns")
    _turns(bench, weights, _load(bench, loader, second))
    loader.stop()


def _load(bench: Bench, loader: Loader, path: Path) -> Weights:
    return loader.run(partial(load.load, path, bench.card, torch.float16))


def _compared(bench: Bench, seconds: float, size: int) -> None:
    """A load from the system's file cache, as a share of the copy's speed and beside diffusers' own."""
    theirs = clocks.seconds(partial(_by_diffusers, bench), min(2, bench.scale.repeats), warm=0)
    share = bench.share(machine.TO_CARD, size / seconds / 1e9)
    bench.note("load, idle", seconds, "s", of_roofline=share, of_peer=theirs / seconds)
    bench.note("load by diffusers", theirs, "s")


def _by_diffusers(bench: Bench) -> plain.Networks:
    return plain.load(files.full(bench.setting), bench.card.torch, torch.float16)


def _from_memory(bench: Bench, loader: Loader, path: Path, size: int) -> Callable[[], None]:
    """A load of what the host keeps converted, in pinned memory; return what keeps it there once more."""
    cache, key = HostCache(4 * size, bench.card), ("bench", torch.float16)

    def keep() -> None:
        found: list[Converted] = []
        load.load(path, bench.card, torch.float16, on_converted=found.append)
        for _ in cache.keep(key, lambda: found[0]):
            pass

    loader.run(keep)
    kept = cache.get(key)
    assert kept is not None
    again = partial(loader.run, partial(load.load_cached, path, kept, bench.card))
    took = clocks.seconds(again, bench.scale.repeats)
    share = bench.share(machine.TO_CARD, size / took / 1e9)
    bench.at_most(LOAD_SECONDS, "load from the host's memory", took, "s", of_roofline=share)

    def keep_again() -> None:
        cache.forget(key)
        transfers.release_pinned_memory()
        keep()

    return keep_again


def _busy(bench: Bench, loader: Loader, weights: Weights, path: Path, keep: Callable[[], None]) -> float:
    """Load, evict, and keep a copy in the host's memory beside pictures in flight; report what it did to their steps,
    and return how many seconds the load took.

    The card never holds more than two checkpoints.
    """
    turns, scale = rendering.Turns(), bench.scale
    others = rendering.uniform(scale.side, scale.steps)
    served = rendering.serving(bench.card, turns)
    with served as engine, rendering.Flight(engine, [weights], others, scale.flight) as flight:
        steps = partial(_steps, bench, turns, flight)
        flight.until(2 * scale.flight)
        turns.clear()
        flight.measured(scale.seconds / 2)
        steps("steps by themselves")
        begun = time.perf_counter()
        loaded = [_load(bench, loader, path)]
        took = time.perf_counter() - begun
        steps("steps beside a load")
        loaded.clear()
        loader.run(devices.release_memory)
        steps("steps beside an eviction")
        loader.run(keep)
        steps("steps beside a copy for the host's memory")
    return took


def _steps(bench: Bench, turns: rendering.Turns, flight: rendering.Flight, name: str) -> None:
    """The time from turn to turn, of which a new count is taken afterwards; a turn that was held up is waited for."""
    flight.until(2 * bench.scale.flight)
    for share in (0.5, 0.99):
        bench.note(f"{name}, p{100 * share:.0f}", 1000 * clocks.share(turns.seconds, share), "ms")
    bench.note(f"{name}, longest", 1000 * max(turns.seconds, default=0.0), "ms")
    turns.clear()


def _turns(bench: Bench, one: Weights, other: Weights) -> None:
    """What it costs to serve two checkpoints instead of one: pictures of both by turns, one at a time."""
    with rendering.serving(bench.card) as engine:
        seconds = [
            clocks.seconds(lambda by=by: _pair(bench, engine, *by), bench.scale.repeats)
            for by in ((one, one), (one, other))
        ]
    bench.at_most(
        1000 * SWITCH_SECONDS, "a switch between residents", 1000 * max(0.0, seconds[1] - seconds[0]) / 2, "ms"
    )


def _pair(bench: Bench, engine: rendering.Engine, *by: Weights) -> None:
    for weights in by:
        rendering.pictures(engine, weights, [rendering.params(bench.scale.side, 2, 1)], 1)
