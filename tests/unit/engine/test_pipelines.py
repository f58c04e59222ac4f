"""Pipelines as people see them: pictures from words, from pictures, and at a second, larger size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shared.errors import RenderError
from shared.media.arrays import Pixels
from shared.params.groups import Guidance, Hires, Refiner
from shared.params.img2img import Img2Img
from shared.params.render import RenderParams
from worker.engine.architectures.prediction import Prediction
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Run, Step
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.sampling import planning

SECONDS = 120
Start = Callable[..., Run]


def picture(height: int = 64, width: int = 64) -> Pixels:
    """A picture of soft colours."""
    down, across = np.mgrid[0:height, 0:width]
    return np.stack([across * 255 // width, down * 255 // height, 128 + 0 * down], axis=-1).astype(np.uint8)


@pytest.fixture
def start(engine: Engine, tiny: Weights, params: RenderParams) -> Start:
    """Start a picture that differs from `params` as said."""

    def start(*, source: Pixels | None = None, on_step: Any = None, **changes: Any) -> Run:
        wanted = params.model_copy(update=changes)
        return engine.render(render(wanted, Kit(tiny, source=source)), on_step=on_step)

    return start


def over(denoising: float, **options: Any) -> Img2Img:
    return Img2Img(picture="0" * 64, denoising=denoising, **options)


def apart(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


# From words.


LEAST: list[dict[str, Any]] = [{"steps": 1}, {"cfg_scale": 0.0}, {"cfg_scale": 1.0}, {"prompt": ""}]
BY_DAY = (("Euler a", 0), ("DDIM", 1), ("DPM++ 2M", 2), ("Euler a", 3))  # samplers, and places among those


@pytest.mark.parametrize(
    ("sampler", "change"),
    [
        pytest.param(sampler, change, marks=() if (sampler, place) in BY_DAY else pytest.mark.nightly)
        for sampler in ("Euler a", "DDIM", "DPM++ 2M")
        for place, change in enumerate(LEAST)
    ],
    ids=str,
)
def test_the_least_that_may_be_asked_for_is_a_picture(start: Start, change: dict[str, Any], sampler: str) -> None:
    result = start(sampler=sampler, **{"steps": 3, **change}).result(SECONDS)
    assert result.shape == (64, 64, 3)
    assert result.std() > 1


def test_at_scale_zero_the_negative_prompt_alone_guides(start: Start) -> None:
    one = start(cfg_scale=0.0, prompt="desert", negative_prompt="sea").result(SECONDS)
    other = start(cfg_scale=1.0, prompt="sea", negative_prompt="").result(SECONDS)
    assert np.array_equal(one, other)


@pytest.mark.nightly
def test_the_largest_picture_is_one(start: Start) -> None:
    result = start(width=2048, height=2048, steps=1, cfg_scale=1.0, sampler="Euler").result(20 * SECONDS)
    assert result.shape == (2048, 2048, 3)
    assert result.std() > 1


def test_an_adaptive_sampler_counts_on_where_it_takes_more_calls_than_was_thought(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "ADAPTIVE_CALLS", 2)
    seen: list[Step] = []
    start(sampler="DPM adaptive", cfg_scale=1.0, on_step=seen.append).result(SECONDS)
    assert [step.index for step in seen] == list(range(1, len(seen) + 1))
    assert [step.steps for step in seen] == [2, *range(2, len(seen) + 1)]


# A refiner.


def test_a_refiner_takes_over_where_it_is_told_to(engine: Engine, tiny: Weights, params: RenderParams) -> None:
    other = replace(tiny, prediction=Prediction.VELOCITY)
    plain = engine.render(render(params, Kit(tiny))).result(SECONDS)
    refined = engine.render(render(params, Kit(other))).result(SECONDS)
    seen: list[Step] = []
    results = {}
    for switch_at in (0.0, 0.6, 1.0):
        wanted = params.model_copy(update={"refiner": Refiner(checkpoint="other", switch_at=switch_at)})
        run = engine.render(render(wanted, Kit(tiny, refiner=other)), on_step=seen.append)
        results[switch_at] = run.result(SECONDS)
    assert np.array_equal(results[0.0], refined)
    assert np.array_equal(results[1.0], plain)
    assert apart(results[0.6], plain) > 0 < apart(results[0.6], refined)
    assert [(step.index, step.steps) for step in seen] == [(call, 4) for call in range(1, 5)] * 3


def test_with_a_second_pass_the_refiner_works_in_that_one(engine: Engine, tiny: Weights, params: RenderParams) -> None:
    other = replace(tiny, prediction=Prediction.VELOCITY)
    refiner = Refiner(checkpoint="other", switch_at=0.0)
    wanted = params.model_copy(update={"hires": Hires(scale=1.5, steps=2), "refiner": refiner})
    refined = engine.render(render(wanted, Kit(tiny, refiner=other))).result(SECONDS)
    second = engine.render(render(wanted, Kit(tiny, hires=other))).result(SECONDS)
    assert np.array_equal(refined, second)


# From a picture.


def test_the_more_is_painted_anew_the_less_is_left(start: Start) -> None:
    kept = start(source=picture(), img2img=over(0.0), steps=10).result(SECONDS)
    distances = [
        apart(kept, start(source=picture(), img2img=over(share), steps=10).result(SECONDS)) for share in (0.3, 0.6, 1.0)
    ]
    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize(
    ("denoising", "exact_steps", "sampler", "calls"),
    [
        (0.5, False, "Euler", 11), (0.0, False, "Euler", 1), (0.75, False, "DDIM", 14), (0.5, True, "Euler", 20),
        *(pytest.param(*one, marks=pytest.mark.nightly)
          for one in ((1.0, False, "Euler", 20), (0.0, False, "DDIM", 1), (1.0, False, "DDIM", 18))),
    ],
)  # fmt: skip
def test_as_many_steps_are_taken_as_the_strength_says(
    start: Start, *, denoising: float, exact_steps: bool, sampler: str, calls: int
) -> None:
    seen: list[Step] = []
    options = over(denoising, exact_steps=exact_steps)
    start(source=picture(), img2img=options, steps=20, sampler=sampler, on_step=seen.append).result(SECONDS)
    assert [(step.index, step.steps) for step in seen] == [(call, calls) for call in range(1, calls + 1)]


def test_with_all_steps_at_strength_zero_none_is_taken(start: Start) -> None:
    seen: list[Step] = []
    options = over(0.0, exact_steps=True)
    results = [
        start(source=picture(), img2img=options, seed=seed, on_step=seen.append).result(SECONDS) for seed in (1, 2)
    ]
    assert not seen
    assert np.array_equal(*results)


def test_a_picture_that_is_not_there_is_named(start: Start) -> None:
    with pytest.raises(RenderError, match="picture to start from is missing"):
        start(img2img=over(0.5)).result(SECONDS)


@pytest.mark.parametrize("mode", ["resize", "crop", "fill", "latent"])
def test_a_picture_of_another_size_becomes_one_of_the_size_asked_for(start: Start, mode: str) -> None:
    result = start(source=picture(90, 50), img2img=over(0.5, resize_mode=mode), width=72).result(SECONDS)
    assert result.shape == (64, 72, 3)


def test_more_noise_changes_more(start: Start) -> None:
    plain = start(source=picture(), img2img=over(0.4)).result(SECONDS)
    assert apart(plain, start(source=picture(), img2img=over(0.4, extra_noise=0.5)).result(SECONDS)) > 0
    assert apart(plain, start(source=picture(), img2img=over(0.4, noise_multiplier=0.5)).result(SECONDS)) > 0


def test_a_result_takes_the_sources_colours_where_that_was_asked_for(start: Start) -> None:
    source = picture() // 4
    plain = start(source=source, img2img=over(0.8)).result(SECONDS)
    result = start(source=source, img2img=over(0.8, color_correction=True)).result(SECONDS)
    assert abs(result.mean() - source.mean()) < 5 < abs(plain.mean() - source.mean())


# A second pass.


@pytest.mark.parametrize("upscaler", ["Latent", "Latent (bicubic antialiased)", "None", "Lanczos", "Nearest"])
def test_a_second_pass_makes_a_larger_picture(start: Start, upscaler: str) -> None:
    hires = Hires(scale=1.5, upscaler=upscaler, steps=2)
    assert start(hires=hires).result(SECONDS).shape == (96, 96, 3)


def test_a_second_pass_starts_from_what_an_upscaler_made_of_the_first(
    engine: Engine, tiny: Weights, params: RenderParams
) -> None:
    class Flat(nn.Module):
        scale = 4

        def __init__(self, level: float) -> None:
            super().__init__()
            self.level = level

        def forward(self, pixels: Tensor) -> Tensor:
            assert pixels.shape == (1, 3, 64, 64)
            assert 0 <= pixels.min() <= pixels.max() <= 1
            return torch.full((1, 3, 256, 256), self.level)

    def made(level: float, seed: int) -> Pixels:
        hires = Hires(scale=1.5, upscaler="4x [0123456789]", denoising=0.0)
        wanted = params.model_copy(update={"hires": hires, "seed": seed})
        upscaler: Any = Flat(level)
        return engine.render(render(wanted, Kit(tiny, upscaler=upscaler))).result(SECONDS)

    dark = made(0.2, seed=1)
    assert dark.shape == (96, 96, 3)
    assert np.array_equal(dark, made(0.2, seed=2))
    assert not np.array_equal(dark, made(0.8, seed=1))


def test_a_size_that_was_asked_for_is_covered_and_cut(start: Start) -> None:
    assert start(hires=Hires(width=128, height=96, steps=1, upscaler="Nearest")).result(SECONDS).shape == (96, 128, 3)


def test_progress_counts_the_calls_of_both_passes(start: Start) -> None:
    seen: list[Step] = []
    hires = Hires(scale=1.5, steps=3, sampler="Heun", denoising=0.5)
    start(hires=hires, steps=4, sampler="Euler", on_step=seen.append).result(SECONDS)
    assert [(step.index, step.steps) for step in seen] == [(call, 9) for call in range(1, 10)]
    assert [step.x.shape[-1] for step in seen] == [8] * 4 + [12] * 5


def test_at_strength_zero_the_second_pass_takes_no_step(start: Start) -> None:
    seen: list[Step] = []
    results = [
        start(hires=Hires(scale=2, denoising=0.0, upscaler="Nearest", prompt=prompt), on_step=seen.append).result(
            SECONDS
        )
        for prompt in ("", "desert")
    ]
    assert [step.index for step in seen] == [1, 2, 3, 4] * 2
    assert results[0].shape == (128, 128, 3)
    assert np.array_equal(*results)


def test_a_second_pass_may_have_its_own(start: Start) -> None:
    same: dict[str, Any] = {"scale": 1.5, "steps": 3}
    plain = start(hires=Hires(**same)).result(SECONDS)
    for change in (
        {"prompt": "desert"}, {"negative_prompt": "cat"}, {"sampler": "DPM++ 2M"}, {"steps": 4}, {"schedule": "karras"},
    ):  # fmt: skip
        assert apart(plain, start(hires=Hires(**(same | change))).result(SECONDS)) > 0, change


def test_a_second_pass_may_have_another_checkpoint(engine: Engine, tiny: Weights, params: RenderParams) -> None:
    other = replace(tiny, prediction=Prediction.VELOCITY)
    wanted = params.model_copy(update={"hires": Hires(scale=1.5, steps=2)})
    plain, changed = (engine.render(render(wanted, Kit(tiny, hires=hires))) for hires in (None, other))
    assert apart(plain.result(SECONDS), changed.result(SECONDS)) > 0


def test_rescaled_guidance_works_in_both_passes(start: Start) -> None:
    guidance = Guidance(rescale=0.7)
    hires = Hires(scale=1.5, steps=2)
    assert apart(start(hires=hires).result(SECONDS), start(hires=hires, guidance=guidance).result(SECONDS)) > 0
