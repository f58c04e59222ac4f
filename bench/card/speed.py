"""Part 6: pictures a second and what a turn costs, beside diffusers on the same card in the same minutes."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import mean, median
from threading import Event, Thread
from typing import Final, NamedTuple

import torch
from PIL import Image

from bench.card import clocks, files, machine, peers, rendering
from bench.card.bench import Bench
from bench.card.rendering import Flight, Turns, Wanted
from shared.media.arrays import Pixels
from shared.params.samplers import SAMPLERS
from worker.engine.answers.answer import answer
from worker.engine.architectures.weights import Weights
from worker.engine.images import previews
from worker.engine.loading import load
from worker.engine.loop.runs import Step
from worker.engine.requests import ToPixels

SLOW: Final = 2.0  # times the median
BUSY_THREADS: Final = 3
PREVIEW_STEPS: Final = 5
PNG_LEVEL: Final = 2  # as workers write them
NOW: Final = 1.0  # of diffusers' own speed at as many pictures
COMPILING_SECONDS: Final = 50.0

Watch = Callable[[Step], object]
Finish = Callable[[Pixels], object]


class Rates(NamedTuple):
    """What a flight came to."""

    rows: float  # of U-Net calls, a second
    turns: Turns
    busy: list[float]  # shares of time in which the card had work


def run(bench: Bench) -> None:
    """Measure what matters most first: what comes last is left out where time is short."""
    weights = load.load(files.full(bench.setting), bench.card, torch.float16)
    plain = peers.load(bench)
    uniform = _ladder(bench, weights, plain)
    _conditions(bench, weights, uniform)
    _attention(bench, weights)
    _decoder(bench, weights)
    peers.larger(bench)
    if bench.seconds_left > COMPILING_SECONDS:
        peers.compiled(bench, plain)
    else:
        bench.note("diffusers, compiled", "left out: no time")


def _ladder(bench: Bench, weights: Weights, plain: peers.Peer) -> Rates:
    """So many pictures in flight, each beside diffusers with as many in a batch; return the last."""
    for in_flight in bench.scale.in_flight:
        bench.now(f"{in_flight} in flight")
        rates = _flown(bench, weights, in_flight)
        theirs = plain.pictures_a_second(in_flight) if in_flight in peers.BATCHES else None
        _note_speed(bench, f"{in_flight} in flight", rates, theirs)
    return rates


def _flown(  # noqa: PLR0913 - what one condition is
    bench: Bench,
    weights: Weights,
    in_flight: int,
    wanted: Wanted | None = None,
    *,
    finish: Finish = lambda _: None,
    on_step: Watch = lambda _: None,
    beside: AbstractContextManager[object] | None = None,
) -> Rates:
    """Keep pictures in flight for a while, after a warm-up, and return the rates."""
    scale, turns = bench.scale, Turns()
    wanted = wanted or rendering.uniform(scale.side, scale.steps)
    flown = rendering.serving(bench.card, turns)
    with flown as engine, Flight(engine, [weights], wanted, in_flight, finish=finish, on_step=on_step) as flight:
        flight.until(in_flight * min(scale.steps, 4))
        with beside or nullcontext(), clocks.busy(bench.card.torch) as busy:
            turns.clear()
            steps = flight.measured(scale.seconds)
    return Rates(2 * steps, turns, busy)


def _note_speed(bench: Bench, name: str, rates: Rates, theirs: float | None) -> None:
    scale, turns = bench.scale, rates.turns
    pictures = rates.rows / 2 / scale.steps  # by steps: whole pictures are few in some seconds
    flops = pictures * (2 * scale.steps * scale.flops_a_row + scale.flops_a_decode)
    share = bench.share(machine.PRODUCT, flops / 1e12) or None
    if theirs:
        bench.at_least(NOW, f"{name}, against diffusers", pictures / theirs, "times")
        bench.note(f"{name}, diffusers in a batch", theirs, "pictures/s")
    bench.note(name, pictures, "pictures/s", of_roofline=share, of_peer=pictures / theirs if theirs else None)
    seconds = turns.seconds or [0.0]
    bench.note(f"{name}, a turn", 1000 * median(seconds), "ms")
    bench.note(f"{name}, rows a turn", rates.rows * sum(seconds) / len(seconds), "rows")
    bench.note(f"{name}, host's share of a turn", 1000 * turns.host_seconds, "ms")
    if rates.busy:
        bench.note(f"{name}, the card is busy", 100 * mean(rates.busy), "%")
    slow = [one for one in seconds if one > SLOW * median(seconds)]
    bench.note(
        f"{name}, turns of twice the median or more",
        f"{len(slow)} of {len(seconds)}, worst {1000 * max(seconds):.0f} ms",
    )


def _conditions(bench: Bench, weights: Weights, uniform: Rates) -> None:
    """The largest flight again, as farms have it: mixed, with files, previews and a busy host."""
    in_flight = bench.scale.in_flight[-1]
    with ThreadPoolExecutor(1) as previewer:

        def show(step: Step) -> None:
            if step.index % PREVIEW_STEPS == 0:
                previewer.submit(previews.mapped, step.denoised, weights.latent_rgb)

        conditions: dict[str, Callable[[], Rates]] = {
            "mixed samplers, steps and guidance": lambda: _flown(bench, weights, in_flight, _mixed(bench)),
            "with PNG files": lambda: _flown(bench, weights, in_flight, finish=_encoded),
            "with previews": lambda: _flown(bench, weights, in_flight, on_step=show),
            "with busy Python threads": lambda: _flown(bench, weights, in_flight, beside=_busy_threads()),
        }
        for name, fly in conditions.items():
            bench.now(name)
            bench.note(f"{name}, of the same without", fly().rows / max(uniform.rows, 1e-9), "times")


def _mixed(bench: Bench) -> Wanted:
    """Pictures of all samplers, with steps and guidance drawn from a seed."""
    chance, names, scale = random.Random(0), list(SAMPLERS), bench.scale
    drawn = [(chance.randint(scale.steps // 2, 2 * scale.steps), chance.uniform(1.5, 12.0)) for _ in range(1000)]

    def wanted(number: int) -> rendering.RenderParams:
        steps, cfg_scale = drawn[number % len(drawn)]
        sampler = names[number % len(names)]
        return rendering.params(scale.side, steps, number, sampler=sampler, cfg_scale=cfg_scale)

    return wanted


def _encoded(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()


@contextmanager
def _busy_threads() -> Iterator[None]:
    """Threads that want Python all the time, as an unlucky worker has them."""
    has_ended = Event()

    def spin() -> None:
        for number in itertools.count():
            if number % 1000 == 0 and has_ended.is_set():
                return

    threads = [Thread(target=spin, daemon=True) for _ in range(BUSY_THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        has_ended.set()
        for thread in threads:
            thread.join()


def _attention(bench: Bench, weights: Weights) -> None:
    """Whether cuDNN's attention is worth the time that each new shape costs it."""
    for name, is_cudnn in (("cuDNN", True), ("flash", False)):
        bench.now(f"attention by {name}")
        seconds = _attended(bench, weights, is_cudnn=is_cudnn).turns.seconds or [0.0]
        bench.note(f"attention by {name}, {bench.scale.flight} in flight, a turn", 1000 * median(seconds), "ms")
        bench.note(f"attention by {name}, worst turn", 1000 * max(seconds), "ms")


def _attended(bench: Bench, weights: Weights, *, is_cudnn: bool) -> Rates:
    """The rates with attention by cuDNN or without, which an engine switches off when it begins: so with each step."""

    def switch(_: Step) -> None:
        torch.backends.cuda.enable_cudnn_sdp(is_cudnn)

    with peers.attention_by_cudnn(is_on=is_cudnn):
        return _flown(bench, weights, bench.scale.flight, on_step=switch)


@torch.inference_mode()
def _decoder(bench: Bench, weights: Weights) -> None:
    """The VAE in its own number format and in float32."""
    bench.now("decodes")
    cells = bench.scale.side // 8
    latent = torch.zeros(4, cells, cells, device=bench.card.torch)
    for name, is_precise in (("own format", False), ("float32", True)):
        asked = [ToPixels(weights, latent, is_precise)]
        took = clocks.seconds(lambda asked=asked: answer(asked, is_exact=False), bench.scale.repeats)  # type: ignore[misc]
        bench.note(f"decode, {name}", 1000 * took, "ms")
