"""Pictures that control nets steer, by what each call of the card sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared.errors import RenderError
from shared.media.arrays import Pixels, resized
from shared.params.controlnet import ControlUnit
from shared.params.groups import Hires, Refiner
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from tests.support import control_nets, small_checkpoints
from tests.unit.engine.conftest import Small
from tests.unit.engine.test_architecture_pipelines import Card, patch, scene
from worker.engine.adapters import control_nets as loading
from worker.engine.adapters.control_nets import ControlNet
from worker.engine.devices import Device
from worker.engine.images.preprocessors import hint
from worker.engine.pipelines.inputs import ControlInput, Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Apply

SHA = "0" * 64


@pytest.fixture(scope="module")
def net(cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> ControlNet:
    drawn = control_nets.build(small_checkpoints.build("sd1"))
    return loading.load(control_nets.write(drawn, tmp_path_factory.mktemp("net") / "edges"), cpu, torch.float32)


def unit(**how: Any) -> ControlUnit:
    return ControlUnit(model="edges", **{"picture": SHA, "resize": "resize", **how})


def params(**changes: Any) -> RenderParams:
    usual = {"prompt": "sea", "negative_prompt": "house", "width": 64, "height": 64, "steps": 4, "cfg_scale": 4.0}
    return RenderParams(checkpoint="small", seed=7, **{**usual, **changes})


def run(card: Card, small: Small, wanted: RenderParams, *inputs: ControlInput, **kit: Any) -> Pixels:
    picture: Pixels = card.run(render(wanted, Kit(small("sd1"), controls=inputs, **kit)))
    return picture


def embedded(card: Card) -> list[torch.Tensor]:
    return [request.pixels for request in card.requests if isinstance(request, Apply)]


def acting(card: Card) -> list[tuple[int, int]]:
    """Return how many controls the prompt and the negative prompt have in each step."""
    return [tuple(len(term.conditioning.controls) for term in step.terms) for step in card.steps]  # type: ignore[misc]


@pytest.mark.parametrize("is_fitted", [False, True])
def test_a_picture_is_embedded_once_a_pass_at_its_size(is_fitted: bool, small: Small, net: ControlNet) -> None:  # noqa: FBT001
    card, given = Card(), scene(100, 140)
    wanted = params(hires=Hires(scale=1.5, steps=2, denoising=1.0))
    held = (resized(given, 64, 64), resized(given, 96, 96)) if is_fitted else (given,)
    run(card, small, wanted, ControlInput(unit(), net, *held))
    first, second = embedded(card)
    assert torch.equal(first, hint(resized(given, 64, 64), None, unit()))
    assert torch.equal(second, hint(resized(given, 96, 96), None, unit()))
    assert set(acting(card)) == {(1, 1)}
    assert {step.terms[0].conditioning.controls[0].hint.shape[1:] for step in card.steps} == {(8, 8), (12, 12)}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [(1, 1)] * 4),
        ({"mode": "prompt"}, [(1, 1)] * 4),
        ({"mode": "control"}, [(1, 0)] * 4),
        ({"end": 0.5}, [(1, 1), (1, 1), (0, 0), (0, 0)]),
        ({"start": 0.3, "end": 0.8}, [(0, 0), (0, 0), (1, 1), (0, 0)]),
        ({"start": 0.9}, [(0, 0)] * 4),
        ({"weight": 0.0}, [(0, 0)] * 4),
    ],
    ids=str,
)
def test_a_control_acts_in_its_share_of_the_steps_and_on_its_rows(
    how: dict[str, Any], expected: list[tuple[int, int]], small: Small, net: ControlNet
) -> None:
    card = Card()
    run(card, small, params(), ControlInput(unit(**how), net, scene()))
    assert acting(card) == expected
    assert len(embedded(card)) == (expected != [(0, 0)] * 4)  # what never acts is not embedded either


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [("Heun", 7), ("Restart", None), pytest.param("DPM adaptive", None, marks=pytest.mark.nightly)],
)
def test_a_step_of_two_calls_is_steered_as_a_whole(
    sampler: str, calls: int | None, small: Small, net: ControlNet
) -> None:
    card = Card()
    run(card, small, params(sampler=sampler, schedule="karras"), ControlInput(unit(end=0.5), net, scene()))
    marks = [has for has, _ in acting(card)]
    assert marks == sorted(marks, reverse=True)
    if calls:
        assert marks == [1] * 4 + [0] * (calls - 4)


def test_a_refiner_goes_without(small: Small, net: ControlNet) -> None:
    card = Card()
    wanted = params(refiner=Refiner(checkpoint="other", switch_at=0.5), steps=6)
    refiner = small("sd1", 1)
    run(card, small, wanted, ControlInput(unit(), net, scene()), refiner=refiner)
    assert {(step.weights.unet is refiner.unet, *has) for step, has in zip(card.steps, acting(card), strict=True)} == {
        (False, 1, 1), (True, 0, 0),
    }  # fmt: skip


# Over a picture.


def test_the_picture_that_a_render_starts_from_is_followed_if_there_is_no_other(small: Small, net: ControlNet) -> None:
    card, source = Card(), scene(80, 96)
    over = Img2Img(picture=SHA, denoising=0.5, resize_mode="crop")
    run(card, small, params(img2img=over), ControlInput(unit(picture=None), net), source=source)
    assert torch.equal(embedded(card)[0], hint(resized(source, 64, 64, "crop"), None, unit()))


def test_only_the_masked_part_is_followed_where_only_that_is_painted(small: Small, net: ControlNet) -> None:
    """A control picture of the source's content is cut as the source is."""
    source, mask = scene(128, 128), np.zeros((128, 128), np.uint8)
    mask[40:72, 40:72] = 255
    over = Img2Img(picture=SHA, denoising=0.5, mask=Mask(picture=SHA, area="only masked", padding=8, blur=0.0))
    shown = []
    for picture, given in ((None, None), (SHA, source)):
        card = Card()
        run(
            card, small, params(img2img=over), ControlInput(unit(picture=picture), net, given), source=source, mask=mask
        )
        shown += embedded(card)
    assert torch.equal(*shown)
    assert not torch.equal(shown[0], hint(resized(source, 64, 64), None, unit()))


def test_an_inpainting_net_sees_the_mask(small: Small, net: ControlNet) -> None:
    card = Card()
    over = Img2Img(picture=SHA, denoising=0.5, mask=Mask(picture=SHA, blur=0.0))
    inputs = ControlInput(unit(picture=None, preprocessor="inpaint"), net)
    run(card, small, params(img2img=over), inputs, source=scene(), mask=patch())
    assert torch.equal(embedded(card)[0][0] == -1, torch.from_numpy(patch() > 0))


# Refusals.


def test_a_picture_that_is_missing_is_told(small: Small, net: ControlNet) -> None:
    with pytest.raises(RenderError, match="control picture is missing"):
        run(Card(), small, params(), ControlInput(unit(picture=None), net))


def test_a_net_that_does_not_fit_is_told_before_its_picture_is_embedded(small: Small, net: ControlNet) -> None:
    card = Card()
    with pytest.raises(RenderError, match="control net edges was made for"):
        card.run(render(params(), Kit(small("sdxl"), controls=(ControlInput(unit(), net, scene()),))))
    assert not embedded(card)


def test_a_union_has_to_know_what_its_picture_shows(small: Small, cpu: Device, tmp_path: Path) -> None:
    drawn = control_nets.build_union(small_checkpoints.build("sdxl"))
    union = loading.load(control_nets.write(drawn, tmp_path / "union"), cpu, torch.float32)
    for how, reason in (({}, "is a union"), ({"shows": "repaint"}, "was not trained on")):
        with pytest.raises(RenderError, match=reason):
            Card().run(render(params(), Kit(small("sdxl"), controls=(ControlInput(unit(**how), union, scene()),))))
    card = Card()
    shown = replace(Kit(small("sdxl")), controls=(ControlInput(unit(preprocessor="canny"), union, scene()),))
    card.run(render(params(), shown))
    assert {step.terms[0].conditioning.controls[0].types for step in card.steps} == {(3,)}
