"""Part 3: pictures of the demo checkpoint: the card against the CPU, half precision, company, and exact mode."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import Final

import torch

from bench import company
from bench.card import children, files, rendering
from bench.card.bench import Bench, Setting
from shared.media.arrays import Pixels
from shared.params.render import RenderParams
from worker.engine import devices
from worker.engine.loading import load

SAME: Final = 0.98  # of pictures between kinds of processor, in float32
BFLOAT16_MEDIAN: Final = 20.0  # decibels: it has three bits less than float16
MOST_DECIBELS: Final = 99.0  # of identical pictures, whose PSNR is infinite


def run(bench: Bench) -> None:
    """Render the mix in every way, and hold the ways against each other; other processes do their share beside it."""
    with children.helper(bench, digest_elsewhere) as other, children.helper(bench, paint_on_the_cpu) as cpu:
        jobs = mix(bench.setting)
        bench.now("float32")
        whole = _together(bench.setting, bench.setting.card, torch.float32, jobs)
        half = _company(bench, jobs)
        _near(bench, "float16 against float32", company.HALF_MEDIAN, _distances(whole, half))
        bench.now("bfloat16")
        bfloat16 = _together(bench.setting, bench.setting.card, torch.bfloat16, jobs)
        _near(bench, "bfloat16 against float32", BFLOAT16_MEDIAN, _distances(whole, bfloat16))
        bench.now("exact pictures")
        _exact(bench, other.answer(bench))
        bench.now("float32 on the CPU")
        _as_promised(bench, _distances(cpu.answer(bench), whole))


def mix(setting: Setting) -> list[company.Job]:
    """Return the pictures that are rendered in every way."""
    scale = setting.scale
    return company.mix(scale.jobs, 0, sides=scale.job_sides, most_steps=scale.job_steps)


def paint_on_the_cpu(setting: Setting, pipe: Connection) -> None:
    """Render the mix on the CPU, with half of its cores, and send the pictures."""
    children.enter(setting)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    pipe.send(_together(setting, "cpu", torch.float32, mix(setting)))


def _together(setting: Setting, card: str, dtype: torch.dtype, jobs: Sequence[company.Job]) -> list[Pixels]:
    device = devices.device(card)
    checkpoints = {company.NAME: load.load(files.demonstration(setting), device, dtype)}
    with rendering.serving(device, halves=False) as engine:
        return company.together(engine, checkpoints, jobs, setting.scale.flight)


def _company(bench: Bench, jobs: Sequence[company.Job]) -> list[Pixels]:
    """Render the mix in float16 alone and in company; report whether that changed a picture, and return the latter."""
    checkpoints = {company.NAME: load.load(files.demonstration(bench.setting), bench.card, torch.float16)}
    with rendering.serving(bench.card, halves=False) as engine:
        bench.now("float16, each picture alone")
        alone = [company.start(engine, checkpoints, job) for job in jobs]
        bench.now(f"float16, {bench.scale.flight} in flight")
        together = company.together(engine, checkpoints, jobs, bench.scale.flight)
    apart = _distances(alone, together)
    _spread(bench, "float16, alone against company", apart)
    changed = company.broken(jobs, apart, torch.float16)
    bench.check("float16, changed by company", not changed, f"{len(changed)} of {len(jobs)}", "none")
    return together


def _as_promised(bench: Bench, apart: Sequence[company.Distance]) -> None:
    """Between kinds of processor float32 gives nearly the same picture, with few exceptions."""
    _spread(bench, "float32, the card against the CPU", apart)
    same = sum(one.share <= company.SHARE_OFF for one in apart) / len(apart)
    bench.at_least(SAME, "float32, share of pictures that are the CPU's", same)


def _near(bench: Bench, what: str, bound: float, apart: Sequence[company.Distance]) -> None:
    bench.at_least(bound, f"{what}, median", median(_decibels(apart)), "dB")
    bench.note(f"{what}, least", min(_decibels(apart)), "dB")


def _spread(bench: Bench, what: str, apart: Sequence[company.Distance]) -> None:
    bench.note(f"{what}, median", median(_decibels(apart)), "dB")
    bench.note(f"{what}, least", min(_decibels(apart)), "dB")


def _decibels(apart: Iterable[company.Distance]) -> list[float]:
    return [min(one.psnr, MOST_DECIBELS) for one in apart]


def _distances(one: Sequence[Pixels], other: Sequence[Pixels]) -> list[company.Distance]:
    return [company.distance(*pair) for pair in zip(one, other, strict=True)]


def _exact(bench: Bench, elsewhere: str) -> None:
    """Exact pictures are the same to the bit: again, in company, and in another process."""
    wanted = exact_pictures(bench.setting)
    weights = load.load(files.demonstration(bench.setting), bench.card, torch.float16)
    with rendering.serving(bench.card, halves=False) as engine:
        first = digest(rendering.pictures(engine, weights, wanted, 1))
        again = digest(rendering.pictures(engine, weights, wanted, 1))
        others = partial(_other, bench)
        with rendering.Flight(engine, [weights], others, bench.scale.flight):
            among = digest(rendering.pictures(engine, weights, wanted, 1))
    for how, found in (("again", again), ("in company", among), ("in another process", elsewhere)):
        bench.check(f"exact, {how}", found == first, f"SHA-256 {found[:12]}", f"{first[:12]}")


def _other(bench: Bench, number: int) -> RenderParams:
    return rendering.params(bench.scale.demo_side, bench.scale.steps, 100 + number)


def exact_pictures(setting: Setting) -> list[RenderParams]:
    """Return what the pictures are that must be the same to the bit."""
    scale = setting.scale
    return [rendering.params(scale.demo_side, scale.steps, seed, exact=True) for seed in range(scale.exact)]


def digest_elsewhere(setting: Setting, pipe: Connection) -> None:
    """Render the exact pictures in this process and send their digest."""
    children.enter(setting)
    card = devices.device(setting.card)
    weights = load.load(files.demonstration(setting), card, torch.float16)
    with rendering.serving(card) as engine:
        pipe.send(digest(rendering.pictures(engine, weights, exact_pictures(setting), 1)))


def digest(pictures: Iterable[Pixels]) -> str:
    """Return the SHA-256 of the bytes of all these pictures."""
    return hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
