"""Part 7: how soon a busy card begins a picture, cancels one, delivers one, and serves urgent ones."""

from __future__ import annotations

import time
from statistics import median
from threading import Event
from typing import Final

import torch

from bench.card import files, rendering
from bench.card.bench import Bench
from bench.card.rendering import Flight, Turns
from shared.errors import Cancelled
from worker.engine.architectures.weights import Weights
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Step

CANCEL_TURNS: Final = 2


def run(bench: Bench) -> None:
    """Ask a busy card for one picture more, in four ways."""
    scale, turns = bench.scale, Turns()
    weights = load.load(files.full(bench.setting), bench.card, torch.float16)
    others = rendering.uniform(scale.side, scale.steps)
    with rendering.serving(bench.card, turns) as engine, Flight(engine, [weights], others, scale.flight) as flight:
        flight.until(2 * scale.flight)
        bench.now("a picture joins")
        _joins(bench, engine, weights, turns)
        bench.now("a picture is cancelled")
        _cancels(bench, engine, weights)
        bench.now("a picture comes out")
        _comes_out(bench, engine, weights)
    _urgent(bench, weights)


def _joins(bench: Bench, engine: Engine, weights: Weights, turns: Turns) -> None:
    """From the asking to the first step's answer; in between its prompt is embedded."""
    seconds, counted = [], []
    for seed in range(bench.scale.repeats):
        before = len(turns.at)
        seconds.append(_first_step(bench, engine, weights, seed))
        counted.append(len(turns.at) - before)
    bench.note("join a busy card, to the first step", 1000 * median(seconds), "ms")
    bench.note("join a busy card, turns", median(counted), "turns")


def _first_step(bench: Bench, engine: Engine, weights: Weights, seed: int, *, urgent: bool = False) -> float:
    stepped, wanted = (
        Event(),
        rendering.params(bench.scale.side, bench.scale.steps, 1000 + seed, prompt=f"number {seed}"),
    )
    begun = time.perf_counter()
    run = rendering.begin(engine, weights, wanted, urgent=urgent, on_step=lambda _: stepped.set())
    stepped.wait(rendering.SECONDS)
    took = time.perf_counter() - begun
    run.cancel()
    return took


def _cancels(bench: Bench, engine: Engine, weights: Weights) -> None:
    """A cancelled picture takes two turns more at most, and its slot is free."""
    more, seconds = [], []
    for seed in range(bench.scale.repeats):
        steps: list[float] = []
        stepped = Event()

        def watch(_: Step, steps: list[float] = steps, stepped: Event = stepped) -> None:
            steps.append(time.perf_counter())
            stepped.set()

        wanted = rendering.params(bench.scale.side, 50, 2000 + seed)
        run = rendering.begin(engine, weights, wanted, on_step=watch)
        stepped.wait(rendering.SECONDS)
        begun, before = time.perf_counter(), len(steps)
        run.cancel()
        try:
            run.result(rendering.SECONDS)
        except Cancelled:
            seconds.append(time.perf_counter() - begun)
        more.append(len(steps) - before)
    bench.at_most(CANCEL_TURNS, "cancelled, turns that it still takes", max(more), "turns")
    bench.check("cancelled, slots freed", len(seconds) == len(more), f"{len(seconds)} of {len(more)}", "all of them")
    bench.note("cancelled, until the slot is free", 1000 * median(seconds or [0.0]), "ms")


def _comes_out(bench: Bench, engine: Engine, weights: Weights) -> None:
    """From the last step's answer to the pixels in memory."""
    seconds = []
    for seed in range(bench.scale.repeats):
        last: list[float] = []

        def watch(_: Step, last: list[float] = last) -> None:
            last[:] = [time.perf_counter()]

        wanted = rendering.params(bench.scale.side, bench.scale.steps, 3000 + seed)
        rendering.begin(engine, weights, wanted, on_step=watch).result(rendering.SECONDS)
        seconds.append(time.perf_counter() - last[0])
    bench.note("last step to pixels", 1000 * median(seconds), "ms")


def _urgent(bench: Bench, weights: Weights) -> None:
    """With twice as many pictures as fill a call an urgent one waits for no one's turn."""
    scale = bench.scale
    bench.now("an urgent picture among too many")
    others, count = rendering.uniform(scale.side, scale.steps), 2 * scale.flight
    served = rendering.serving(bench.card, row_budget=count)
    with served as engine, Flight(engine, [weights], others, count) as flight:
        flight.until(count)
        usual = median(_first_step(bench, engine, weights, seed) for seed in range(scale.repeats))
        urgent = median(_first_step(bench, engine, weights, seed, urgent=True) for seed in range(scale.repeats))
    bench.note("first step among too many", 1000 * usual, "ms")
    bench.note("first step among too many, urgent", 1000 * urgent, "ms")
