"""Pictures of two SDXL checkpoints and one of Stable Diffusion 1 in flight together: each as it is alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import company
from bench.company import Job
from shared.params.samplers import SAMPLERS
from shared.prompts.tokenizer import Tokenizer
from tests.support.conditioned import with_empty_caches
from tests.unit.engine.conftest import Small
from worker.engine.answers.calls import Calls
from worker.engine.answers.denoising import denoise
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.loop.grouping import plan
from worker.engine.loop.runs import Ask, Run
from worker.engine.loop.warmup import WarmUp
from worker.engine.requests import Denoise, Term

NIGHTLY = (pytest.mark.nightly, pytest.mark.timeout(900))
CHECKPOINTS = ("one-xl", "other-xl", "one-sd1")

Checkpoints = dict[str, Weights]


@pytest.fixture(scope="module")
def checkpoints(small: Small) -> Checkpoints:
    return dict(zip(CHECKPOINTS, (small("sdxl"), small("sdxl", 1), small("sd1")), strict=True))


def mixed(count: int, sides: Sequence[int] = (64, 72), most_steps: int = 9) -> list[Job]:
    return company.spread(company.mix(count, 3, sides=sides, most_steps=most_steps), CHECKPOINTS, seed=3)


def assert_same(jobs: Sequence[Job], alone: Sequence[np.ndarray], together: Sequence[np.ndarray]) -> None:
    for job, picture, other in zip(jobs, alone, together, strict=True):
        assert np.array_equal(picture, other), job.params


@pytest.mark.parametrize("jobs", [mixed(6, (64,), 3), pytest.param(mixed(24), marks=NIGHTLY)], ids=len)
def test_pictures_of_several_architectures_are_in_company_what_they_are_alone(
    engine: Engine, checkpoints: Checkpoints, jobs: list[Job]
) -> None:
    with company.rows_counted(checkpoints.values()) as rows_alone:
        alone = [company.start(engine, checkpoints, job) for job in jobs]
    fresh = {name: with_empty_caches(one) for name, one in checkpoints.items()}
    with company.rows_counted(checkpoints.values()) as rows:
        together = company.together(engine, fresh, jobs, in_flight=8)
    assert_same(jobs, alone, together)
    assert sum(rows) == sum(rows_alone)
    assert len(rows) <= len(rows_alone)


def test_the_mix_of_24_holds_what_differs_by_architecture() -> None:
    jobs = mixed(24)
    params = [job.params for job in jobs]
    assert {one.checkpoint for one in params} == set(CHECKPOINTS)
    assert {one.sampler for one in params} == set(SAMPLERS)
    assert min(one.cfg_scale for one in params) == 1
    assert max(one.cfg_scale for one in params) > 10
    assert len({one.steps for one in params}) > 2
    assert len({(one.original_size, one.target_size, one.crop) for one in params}) > 12
    chunks = Tokenizer().chunks
    assert {len(chunks(one.prompt, emphasis="Original")) for one in params} == {1, 2, 3}


def denoising(weights: Weights, size: float, chunks: Sequence[int] = (1,)) -> Denoise:
    """A call of a row for each of `chunks`, of random texts; `size` is each figure about the picture's size."""
    draw = torch.Generator().manual_seed(round(size))
    blank = weights.architecture.blank(weights.unet)

    def term(count: int) -> Term:
        context = torch.randn(blank.chunk * count, blank.context.shape[1], generator=draw)
        pooled = None if blank.pooled is None else torch.randn(blank.pooled.shape, generator=draw)
        return Term(1 / len(chunks), Conditioning(context, blank.chunk, pooled, (size,) * len(blank.sizes)))

    x = torch.randn(weights.latent.channels, 8, 8, generator=draw)
    return Denoise(weights, x, size / 100, tuple(map(term, chunks)), 1, 1)


def answers(requests: Sequence[Denoise]) -> list[Tensor]:
    return [answer for answer in denoise(requests, is_exact=False) if isinstance(answer, Tensor)]


def asks(requests: Sequence[Denoise]) -> list[Ask]:
    return [Ask(Run(iter(()), is_exact=False, is_urgent=False, on_cancel=print), 0, one) for one in requests]


def test_pictures_of_other_sizes_for_sdxl_share_a_call_and_are_what_they_are_alone(checkpoints: Checkpoints) -> None:
    weights = checkpoints["one-xl"]
    requests = [denoising(weights, 512.0 + place, (1, 2) if place % 2 else (2, 2)) for place in range(3)]
    waiting = asks(requests)
    assert plan(waiting, 16)[0] == [waiting]
    with company.rows_counted([weights]) as rows:
        together = answers(requests)
    assert rows == [6]
    for one, request in zip(together, requests, strict=True):
        assert torch.equal(one, *answers([request]))


@pytest.mark.parametrize("name", CHECKPOINTS[1:])
def test_a_picture_at_cfg_1_shares_calls_with_guided_ones(checkpoints: Checkpoints, name: str) -> None:
    requests = [denoising(checkpoints[name], size, chunks) for size, chunks in ((512.0, (1,)), (1024.0, (1, 1)))]
    waiting = asks(requests)
    assert plan(waiting, 16)[0] == [waiting]
    for one, request in zip(answers(requests), requests, strict=True):
        assert torch.equal(one, *answers([request]))


@pytest.mark.parametrize(("side", "pictures"), [(512, 4), (1024, 4), (1440, 2), (2048, 1)])
def test_a_row_of_sdxl_above_1024_pixels_takes_the_place_of_several(
    checkpoints: Checkpoints, side: int, pictures: int
) -> None:
    weights = checkpoints["one-xl"]
    request = replace(denoising(weights, 1024.0, (1, 1)), x=torch.zeros(4, side // 8, side // 8))
    calls, _ = plan(asks([request] * 6), 8)
    assert [len(call) for call in calls] == [pictures]


def test_checkpoints_of_every_architecture_are_warmed_up_in_each_count_of_rows(checkpoints: Checkpoints) -> None:
    calls = Calls()
    warm_up = WarmUp((1, 2), calls)
    small = {name: replace(checkpoints[name], native_size=64) for name in CHECKPOINTS[1:]}
    for weights in small.values():
        warm_up.add(weights, nullcontext)
    with company.rows_counted(small.values()) as rows:
        while due := warm_up.next():
            warm_up.make(due[0])
    assert rows == [1, 2, 1, 2]
    assert not any(calls.broken.values())


def test_pictures_of_two_checkpoints_of_one_architecture_share_no_call(checkpoints: Checkpoints) -> None:
    waiting = asks([denoising(checkpoints[name], 1024.0) for name in CHECKPOINTS[:2]])
    assert plan(waiting, 16) == ([waiting[:1], waiting[1:]], [])
