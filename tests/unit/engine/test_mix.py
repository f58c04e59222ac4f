"""Company: a mix of jobs in flight gives each the picture that it has alone, and nobody waits for others' slow work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import current_thread
from typing import Any

import numpy as np
import pytest
import torch

from bench import company
from shared.media import framing
from shared.params.groups import Hires
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from worker.engine.architectures.weights import Weights
from worker.engine.images import colours, masks
from worker.engine.loop.engine import Engine
from worker.engine.pipelines import img2img_host
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.upscaling import enlarging

SECONDS = 120


def test_a_mix_of_jobs_is_in_company_what_it_is_alone(engine: Engine, tiny: Weights) -> None:
    jobs = company.mix(8, seed=1, sides=(64, 72), most_steps=3)
    alone = [company.start(engine, {company.NAME: tiny}, job) for job in jobs]
    together = company.together(engine, {company.NAME: tiny}, jobs, in_flight=8)
    distances = [company.distance(*pair) for pair in zip(alone, together, strict=True)]
    assert company.broken(jobs, distances) == [], company.table(jobs, distances)


def test_the_mix_holds_all_kinds_samplers_and_options() -> None:
    jobs = company.mix(64, seed=0, sides=(64, 128))
    assert {job.kind for job in jobs} == set(company.KINDS)
    assert {job.params.sampler for job in jobs} == set(SAMPLERS)
    assert {job.params.tiling for job in jobs} == {"none", "both", "x", "y"}
    steps = [job.params.steps for job in jobs]
    assert min(steps) < 10
    assert max(steps) > 30
    assert any(job.params.exact for job in jobs)
    assert company.mix(64, seed=0, sides=(64, 128))[5].params == jobs[5].params


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, float]]]:
    """On which thread the slow parts of pictures ran, and for how long."""
    calls: dict[str, list[tuple[str, float]]] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            begun = time.thread_time()
            result = function(*arguments, **named)
            calls.setdefault(name, []).append((current_thread().name, time.thread_time() - begun))
            return result

        return called

    slow = {
        framing: ("rounded",),
        img2img_host: ("resized",),
        masks: ("blurred", "filled", "laid_over"),
        colours: ("matched",),
    }
    for module, names in slow.items():
        for name in names:
            monkeypatch.setattr(module, name, timed(name, getattr(module, name)))
    monkeypatch.setattr(enlarging, "enlarged", timed("enlarged", enlarging.enlarged))
    return calls


def test_slow_work_on_one_picture_holds_nobody_up(
    engine: Engine, tiny: Weights, params: RenderParams, host: dict[str, list[tuple[str, float]]]
) -> None:
    source = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3)).astype(np.uint8)
    mask = np.zeros((1500, 2000), np.uint8)
    mask[300:1200, 400:1600] = 255
    cover = Mask(picture="m", blur=24.0, content="fill", area="only masked")
    slow = params.model_copy(
        update={"img2img": Img2Img(picture="s", mask=cover, color_correction=True), "width": 256, "height": 256}
    )
    large = params.model_copy(update={"hires": Hires(scale=2, upscaler="Lanczos", steps=1)})
    neighbours = [engine.render(render(params.model_copy(update={"steps": 10, "seed": n}), Kit(tiny))) for n in (1, 2)]
    kits = (Kit(tiny, source=source, mask=mask), Kit(tiny))
    pictures = [engine.render(render(each, kit)) for each, kit in zip((slow, large), kits, strict=True)]
    for run in (*pictures, *neighbours):
        run.result(SECONDS)
    assert set(host) == {"resized", "rounded", "blurred", "filled", "laid_over", "matched", "enlarged"}
    assert not any(thread.startswith("engine cpu") for calls in host.values() for thread, _ in calls)
    on_the_host = sum(seconds for calls in host.values() for _, seconds in calls)
    assert engine.longest_hold_seconds < on_the_host / 10


def distances(*decibels: float) -> list[company.Distance]:
    return [company.Distance(0.5, 90, one) for one in decibels]


def test_half_precision_is_judged_by_psnr() -> None:
    jobs = [job for job in company.mix(24, seed=0, sides=(64,)) if not job.params.exact][:4]
    half = torch.float16
    assert company.broken(jobs, distances(45, 40, 35, 21), half) == []
    assert company.broken(jobs, distances(45, 40, 35, 19), half) == jobs[3:]
    assert company.broken(jobs, distances(45, 29, 28, 21), half) == jobs[1:]  # too many that are not near
    assert company.broken(jobs, distances(45, 40, 35, 21)) == jobs  # float32 has its own rule


def test_an_exact_picture_is_identical_in_half_precision_too() -> None:
    jobs = [job for job in company.mix(16, seed=0, sides=(64,)) if job.params.exact][:2]
    apart = [company.Distance(0.0, 0, math.inf), company.Distance(0.0, 1, 60.0)]
    assert company.broken(jobs, apart, torch.float16) == jobs[1:]
