"""Inpainting end to end: what is masked changes, the rest stays, whatever the sampler and the area."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shared.media.arrays import Pixels
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from tests.unit.engine.test_pipelines import SECONDS, apart, picture
from worker.engine.architectures.weights import Weights
from worker.engine.guidance import inpainting
from worker.engine.guidance.inpainting import View
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Run
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render

Start = Callable[..., Run]
SHA = "0" * 64


def patch(height: int = 64, width: int = 64) -> Pixels:
    """A mask over the middle."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    return mask


@pytest.fixture
def start(engine: Engine, tiny: Weights, params: RenderParams) -> Start:
    """Start inpainting `picture()` in a way that differs as said."""

    def start(*, mask: Pixels | None = None, how: dict[str, Any] | None = None, **changes: Any) -> Run:
        cover = Mask(picture=SHA, **{"blur": 0.0, **(how or {})})
        start = Img2Img(picture=SHA, denoising=changes.pop("denoising", 0.8), mask=cover)
        wanted = params.model_copy(update={"img2img": start, "steps": 3, **changes})
        kit = Kit(tiny, source=picture(), mask=patch() if mask is None else mask)
        return engine.render(render(wanted, kit))

    return start


@pytest.mark.parametrize("how", [{}, {"soft": True}, {"area": "only masked", "padding": 4}], ids=str)
@pytest.mark.parametrize("sampler", ["Euler a", "DDIM", "DDIM CFG++", "DPM++ SDE"])
def test_what_is_masked_changes_and_the_rest_stays(start: Start, sampler: str, how: dict[str, Any]) -> None:
    result = start(sampler=sampler, how=how).result(SECONDS)
    inside = patch() > 0
    assert np.array_equal(result[~inside], picture()[~inside])
    assert apart(result[inside], picture()[inside]) > 10


def test_each_kind_of_masked_content_starts_elsewhere(start: Start) -> None:
    kinds = ("original", "fill", "latent noise", "latent nothing")
    results = [start(how={"content": kind}, denoising=0.4).result(SECONDS) for kind in kinds]
    for place, one in enumerate(results):
        for other in results[place + 1 :]:
            assert apart(one, other) > 0.1


def test_a_blank_mask_paints_the_whole_picture(start: Start, engine: Engine, tiny: Weights) -> None:
    result = start(mask=np.zeros((64, 64), np.uint8)).result(SECONDS)
    full = start(mask=np.full((64, 64), 255, np.uint8)).result(SECONDS)
    assert apart(result, picture()) > 10
    assert np.array_equal(result, full)


def test_a_turned_mask_paints_what_it_left_out(start: Start) -> None:
    result = start(how={"invert": True}).result(SECONDS)
    inside = patch() > 0
    assert np.array_equal(result[inside], picture()[inside])
    assert apart(result[~inside], picture()[~inside]) > 10


# Checkpoints trained for inpainting.


def run_through(asks: Any, weights: Weights) -> Any:
    """Run a generator that asks for latents and work only: the latent is the pixels' mean of each cell."""
    answer = None
    while True:
        try:
            asked = asks.send(answer)
        except StopIteration as end:
            return end.value
        if hasattr(asked, "function"):
            answer = asked.function()
        else:
            means = torch.nn.functional.avg_pool2d(asked.pixels, 8)
            answer = torch.cat([means, means[:1]])


@pytest.fixture
def masked(tiny: Weights) -> Weights:
    """A checkpoint that says that it takes a mask."""

    unet = torch.nn.Module()
    unet.config = {"in_channels": 9}  # type: ignore[assignment]
    return replace(tiny, unet=unet)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_checkpoint_that_takes_a_mask_is_shown_what_is_not_hidden(masked: Weights, weight: float) -> None:
    pixels = torch.full((3, 16, 24), 0.5)
    mask = torch.zeros(1, 16, 24)
    mask[:, :8] = 1
    extra = run_through(inpainting.seen(masked, View(pixels, mask, weight), 24, 16), masked)
    assert extra.shape == (5, 2, 3)
    assert torch.equal(extra[0], torch.tensor([[1.0] * 3, [0.0] * 3]))
    assert torch.allclose(extra[1:, 0], torch.tensor(0.5 * (1 - weight)))
    assert torch.allclose(extra[1:, 1], torch.tensor(0.5))


def test_without_a_picture_all_is_hidden(masked: Weights) -> None:
    extra = run_through(inpainting.seen(masked, None, 24, 16), masked)
    assert torch.equal(extra[0], torch.ones(2, 3))
    assert torch.equal(extra[1:], torch.zeros(4, 2, 3))
