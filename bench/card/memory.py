"""Part 4: what calls take of the card, what happens where that is not there, and whether anything stays behind."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from bench import company
from bench.card import files, rendering
from bench.card.bench import TIGHT, Bench
from shared.errors import RenderError
from shared.media.arrays import Pixels
from shared.params.groups import Hires
from shared.params.render import RenderParams
from worker.engine.answers.answer import answer
from worker.engine.answers.calls import Calls
from worker.engine.answers.denoising import denoise
from worker.engine.architectures.weights import Weights
from worker.engine.devices import MemoryPeak, release_memory
from worker.engine.images import previews
from worker.engine.loading import load
from worker.engine.loop.runs import Step
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Asks, Denoise, Term, ToPixels

MOST_REFUSED: Final = 0.1  # of turns after the free ones
GROWTH: Final = 0.01  # of the card's memory that a load takes
HOST_GROWTH: Final = 96 * 2**20  # bytes: allocators keep some


def run(bench: Bench) -> None:
    """Measure calls, then a card that is too small, then loads and evictions."""
    weights = load.load(files.full(bench.setting), bench.card, torch.float16)
    bench.note("weights", weights.bytes / 2**30, "GiB")
    _calls(bench, weights)
    _small(bench, weights)
    del weights
    bench.now("loads and evictions")
    _cycles(bench)


@torch.inference_mode()
def _calls(bench: Bench, weights: Weights) -> None:
    """The peak of a U-Net call by rows and size, and of a decode by size."""
    for side in bench.scale.sides:
        cells = side // 8
        for rows in bench.scale.rows:
            bench.now(f"a call of {rows} rows of {side} x {side}")
            asked = [_denoise(bench, weights, cells, number) for number in range(rows // 2)]
            bench.note(f"{rows} rows of {side}, peak", _peak(bench, lambda asked=asked: _denoised(asked)), "GiB")
        latent = torch.zeros(4, cells, cells, device=bench.card.torch)
        decode = [ToPixels(weights, latent)]
        bench.note(f"decode of {side}, peak", _peak(bench, lambda decode=decode: answer(decode, is_exact=False)), "GiB")
    budget = bench.card.row_budget
    asked = [_denoise(bench, weights, weights.native_size // 8, number) for number in range(budget // 2)]
    took = _peak(bench, lambda: _denoised(asked))
    room = (bench.card.memory_bytes - weights.bytes) / 2**30
    bench.at_most(room, f"the budget of {budget} rows, peak", took, "GiB")


def _denoised(asked: list[Denoise]) -> Sequence[object]:
    """All answers from one call; raises if there is no room for it."""
    return denoise(asked, is_exact=False, calls=Calls(halves=False))


def _peak(bench: Bench, call: object) -> float:
    """GiB that a call takes at most. Raises the error of an answer that is one."""
    release_memory()
    peak = MemoryPeak.since_now(bench.card)
    assert peak is not None
    assert callable(call)
    found = call()
    for one in found:
        if isinstance(one, Exception):
            raise one
    return peak.bytes() / 2**30


def _denoise(bench: Bench, weights: Weights, cells: int, seed: int) -> Denoise:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, cells, cells, generator=generator).to(bench.card.torch)
    blank = weights.architecture.blank(weights.unet)
    context = torch.randn(2, *blank.context.shape, generator=generator).to(blank.context)
    terms = (Term(7.0, replace(blank, context=context[0])), Term(-6.0, replace(blank, context=context[1])))
    return Denoise(weights, x, 1.0, terms, 1, 10)


def _small(bench: Bench, weights: Weights) -> None:
    """On a card cut down to a fraction all pictures come out as before, and few turns are refused."""
    side, steps = bench.scale.side, bench.scale.steps
    wanted = [rendering.params(side, steps, seed) for seed in range(bench.scale.flight)]
    larger: RenderParams = rendering.params(side, steps, bench.scale.flight, hires=_hires(bench))
    bench.now("pictures with the whole card")
    whole = _rendered(bench, weights, [*wanted, larger])[0]
    for name, room in bench.scale.rooms.items():
        bench.now(f"pictures with {name}")
        with room_for(bench, room):
            pictures, times, rate = _rendered(bench, weights, [*wanted, larger])
        apart = [company.distance(*pair).psnr for pair in zip(whole, pictures, strict=True)]
        bench.at_least(company.HALF_LEAST, f"{name}: least like the whole card's", min(99.0, *apart), "dB")
        bench.at_least(1 if name == TIGHT else 0, f"{name}: out of memory, times in all", times)
        bench.at_most(MOST_REFUSED, f"{name}: out of memory, times a turn after {bench.scale.free_turns}", rate)


def _hires(bench: Bench) -> dict[str, Any]:
    steps = max(1, bench.scale.steps // 2)
    return Hires(scale=bench.scale.larger, upscaler="Lanczos", steps=steps).model_dump()


def _rendered(bench: Bench, weights: Weights, wanted: list[RenderParams]) -> tuple[list[Pixels], int, float]:
    """Pictures, all in flight; how often they ran out of memory in all, and how often a turn did after the first."""
    turns, free, before = rendering.Turns(), bench.scale.free_turns, out_of_memory()
    first: list[int] = []

    def on_phase(phase: str, seconds: float) -> None:
        turns(phase, seconds)
        if len(turns.at) == free and not first:
            first.append(out_of_memory())

    with rendering.serving(bench.card, on_phase) as engine:
        pictures = rendering.pictures(engine, weights, wanted, len(wanted))
    after = out_of_memory()
    return pictures, after - before, (after - (first or [after])[0]) / max(1, len(turns.at) - free)


def out_of_memory() -> int:
    """Return how often this process has run out of the card's memory."""
    return int(torch.cuda.memory_stats()["num_ooms"])


@contextmanager
def room_for(bench: Bench, room: int) -> Iterator[None]:
    """Within the block this process may take `room` bytes more than it holds, and no more."""
    release_memory()
    share = (torch.cuda.memory_allocated() + room) / bench.card.memory_bytes
    torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        release_memory()


def _cycles(bench: Bench) -> None:
    """Load, render with previews, fail, evict: again and again. Nothing is left to the garbage collector's luck."""
    with rendering.serving(bench.card) as engine:
        _cycle(bench, engine)  # the first ones bring kernels and workspaces
        gc.collect()
        gc.disable()
        try:
            allocated, host, pinned = torch.cuda.memory_allocated(), _host_bytes(), _pinned_bytes()
            taken = max(_cycle(bench, engine) for _ in range(bench.scale.cycles))
            _growth(bench, allocated, taken)
        finally:
            gc.enable()
    bench.at_most(HOST_GROWTH / 2**20, "memory of the host, grown by", (_host_bytes() - host) / 2**20, "MiB")
    bench.at_most(HOST_GROWTH / 2**20, "pinned memory, grown by", (_pinned_bytes() - pinned) / 2**20, "MiB")
    bench.note("memory of the host, most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GiB")


def _growth(bench: Bench, before: int, taken: int) -> None:
    after = torch.cuda.memory_allocated()
    cycles = bench.scale.cycles
    bench.at_most(GROWTH, f"{cycles} loads and evictions: kept of what one takes", (after - before) / taken)
    bench.note("memory of the card, reserved after them", torch.cuda.memory_reserved() / 2**30, "GiB")


def _cycle(bench: Bench, engine: rendering.Engine) -> int:
    """One checkpoint's life; return the bytes that it took of the card."""
    before = torch.cuda.memory_allocated()
    weights = load.load(files.full(bench.setting, seed=1), bench.card, torch.float16)
    taken = torch.cuda.memory_allocated() - before
    shown: list[Tensor] = []

    def watch(step: Step) -> None:
        shown[:] = [step.denoised]

    wanted = rendering.params(bench.scale.side, 3, 1)
    rendering.begin(engine, weights, wanted, on_step=watch).result(rendering.SECONDS)
    preview = previews.mapped(shown.pop(), weights.latent_rgb)
    assert isinstance(preview, np.ndarray)
    run = engine.render(_failing(weights, wanted))
    try:
        run.result(rendering.SECONDS)
    except RenderError:
        return taken
    raise RuntimeError("a picture that fails came out")


def _failing(weights: Weights, wanted: RenderParams) -> Asks[Pixels]:
    """A picture that fails with its tensors in hand."""
    pixels = yield from render(wanted, Kit(weights))
    raise RenderError(f"planted, at {pixels.shape}")


def _host_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _pinned_bytes() -> int:
    return int(torch.cuda.host_memory_stats().get("allocated_bytes.current", 0))
