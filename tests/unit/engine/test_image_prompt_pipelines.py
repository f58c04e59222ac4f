"""Pictures that are rendered with others as prompts, by what each call of the card sees."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.errors import RenderError
from shared.params.groups import Hires, Refiner
from shared.params.img2img import Img2Img
from shared.params.render import RenderParams
from tests.support import ip_adapters, small_checkpoints
from tests.support.image_prompted import SHA, unit
from tests.support.parity import SECONDS
from tests.unit.engine.conftest import Small
from tests.unit.engine.test_architecture_pipelines import Card, scene
from worker.engine.adapters.ip_adapters import load
from worker.engine.devices import Device
from worker.engine.images.clip_input import clip_input
from worker.engine.loading import image_encoders
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import IPAdapterInput, Kit
from worker.engine.pipelines.render import render
from worker.engine.requests import Apply


class Inputs:
    """Adapters of both kinds for the small checkpoint of Stable Diffusion 1, and their encoder."""

    def __init__(self, on: Device, folder: Path) -> None:
        base = small_checkpoints.build("sd1")
        self.encoder = image_encoders.load(
            ip_adapters.write_encoder(ip_adapters.encoder(), folder / "eyes"), on, torch.float32
        )
        self.adapters = {
            form: load(ip_adapters.write(ip_adapters.build(base, form), folder / form), on, torch.float32)
            for form in ("plain", "plus")
        }

    def __call__(self, form: str = "plain", *pictures: Any, **how: Any) -> IPAdapterInput:
        shown = pictures or (scene(),)
        adapter = replace(self.adapters[form])  # which remembers no picture
        return IPAdapterInput(unit(*shown, **how), adapter, self.encoder, shown)


@pytest.fixture(scope="module")
def inputs(cpu: Device, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(cpu, tmp_path_factory.mktemp("adapters"))


def params(**changes: Any) -> RenderParams:
    usual = {
        "prompt": "sea",
        "seed": 7,
        "negative_prompt": "house",
        "width": 64,
        "height": 64,
        "steps": 4,
        "cfg_scale": 4.0,
    }
    return RenderParams(checkpoint="small", **{**usual, **changes})


def run(card: Card, small: Small, wanted: RenderParams, *given: IPAdapterInput, **kit: Any) -> None:
    card.run(render(wanted, Kit(small("sd1"), ip_adapters=given, **kit)))


def seen(card: Card, reader: torch.nn.Module) -> list[Tensor]:
    """Return what a network was asked to read."""
    return [request.pixels for request in card.requests if isinstance(request, Apply) and request.network is reader]


def acting(card: Card) -> list[tuple[int, int]]:
    """Return how many image prompts the prompt and the negative prompt have in each step."""
    return [tuple(len(term.conditioning.image_prompts) for term in step.terms) for step in card.steps]  # type: ignore[misc]


def test_pictures_are_read_once_a_pass_and_set_one_after_the_other(small: Small, inputs: Inputs) -> None:
    card, given = Card(), (scene(100, 140), scene(64, 64))
    run(card, small, params(), inputs("plus", *given, weight=0.6))
    read = seen(card, inputs.encoder.readers["hidden"])
    expected = [
        *(clip_input(one, ip_adapters.SIDE) for one in given),
        torch.zeros(3, ip_adapters.SIDE, ip_adapters.SIDE),
    ]
    assert all(map(torch.equal, read, expected))
    assert {one.places for one in card.requests if isinstance(one, Apply)} == {17}
    assert len(read) == len(expected)
    assert set(acting(card)) == {(1, 1)}
    [(shown, nothing)] = {tuple(term.conditioning.image_prompts[0] for term in step.terms) for step in card.steps}
    assert (len(shown.read), len(nothing.read), shown.weight) == (12, 6, 0.6)
    assert torch.equal(nothing.read, shown.nothing)


def test_nothing_is_zeros_for_an_adapter_that_reads_the_encoders_result(small: Small, inputs: Inputs) -> None:
    card = Card()
    run(card, small, params(), inputs("plain"))
    assert len(seen(card, inputs.encoder.readers["projected"])) == 1
    features, nothing = seen(card, inputs.adapters["plain"].network)
    assert features.any()
    assert torch.equal(nothing, torch.zeros(1, 48))


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [(1, 1)] * 4),
        ({"end": 0.5}, [(1, 1), (1, 1), (0, 0), (0, 0)]),
        ({"start": 0.3, "end": 0.8}, [(0, 0), (0, 0), (1, 1), (0, 0)]),
        ({"start": 0.9}, [(0, 0)] * 4),
        ({"weight": 0.0}, [(0, 0)] * 4),
    ],
    ids=str,
)
def test_an_image_prompt_acts_in_its_share_of_the_steps(
    how: dict[str, Any], expected: list[tuple[int, int]], small: Small, inputs: Inputs
) -> None:
    card = Card()
    run(card, small, params(), inputs(**how))
    assert acting(card) == expected
    assert bool(seen(card, inputs.adapters["plain"].network)) == (expected != [(0, 0)] * 4)


def test_both_passes_of_hires_fix_read_it_and_a_refiner_does_not(small: Small, inputs: Inputs) -> None:
    card = Card()
    run(card, small, params(hires=Hires(scale=1.5, steps=2, denoising=1.0)), inputs("plain"), inputs("plus"))
    assert set(acting(card)) == {(2, 2)}
    card, refiner = Card(), small("sd1", 1)
    run(card, small, params(refiner=Refiner(checkpoint="other", switch_at=0.5), steps=6), inputs(), refiner=refiner)
    found = {(step.weights.unet is refiner.unet, *has) for step, has in zip(card.steps, acting(card), strict=True)}
    assert found == {(False, 1, 1), (True, 0, 0)}


@pytest.mark.parametrize(("form", "features", "reads"), [("plain", "projected", 1), ("plus", "hidden", 2)])
def test_a_picture_is_read_once_for_the_images_of_a_job_and_both_passes_of_each(
    form: str, features: Any, reads: int, small: Small, inputs: Inputs
) -> None:
    given, passes = inputs(form), Hires(scale=1.5, steps=2, denoising=1.0)
    card = Card()
    pictures = [
        card.run(render(params(seed=seed, hires=passes), Kit(small("sd1"), ip_adapters=(given,)))) for seed in (1, 2)
    ]
    assert len(seen(card, inputs.encoder.readers[features])) == reads
    assert len(seen(card, given.adapter.network)) == 2
    alone = Card().run(render(params(seed=2, hires=passes), Kit(small("sd1"), ip_adapters=(inputs(form),))))
    assert np.array_equal(pictures[1], alone)
    run(card, small, params(), given._replace(options=unit(scene(80, 64)), pictures=(scene(80, 64),)))
    assert len(seen(card, given.adapter.network)) == 3


def test_what_is_remembered_of_pictures_keeps_neither_an_adapter_nor_an_encoder(small: Small, inputs: Inputs) -> None:
    first = inputs("plus")
    given = first._replace(encoder=replace(first.encoder))
    del first
    card = Card()
    run(card, small, params(), given)
    adapter, encoder = ref(given.adapter), ref(given.encoder)
    other = given._replace(encoder=inputs.encoder)
    reads = len(seen(card, given.adapter.network))
    run(card, small, params(), other)
    assert len(seen(card, given.adapter.network)) == 2 * reads
    card.requests.clear()
    del given
    gc.collect()
    assert encoder() is None
    del other
    gc.collect()
    assert adapter() is None


def test_what_an_encoder_read_leaves_the_memory_with_it(inputs: Inputs) -> None:
    adapter, encoder = inputs().adapter, replace(inputs.encoder)
    weights = adapter.bytes
    adapter.remember(encoder, SHA, torch.zeros(256))
    assert (adapter.bytes, adapter.remembered(encoder, None)) == (weights + 1024, None)
    del encoder
    gc.collect()
    assert adapter.bytes == weights
    adapter.remember(inputs.encoder, SHA, torch.zeros(256))
    assert adapter.remembered(inputs.encoder, SHA) is not None
    adapter.remember(replace(inputs.encoder), SHA, torch.zeros(256))
    assert adapter.remembered(inputs.encoder, SHA) is None  # it holds what one encoder read at a time


def test_a_picture_over_another_one_reads_it_too(small: Small, inputs: Inputs) -> None:
    card = Card()
    run(card, small, params(img2img=Img2Img(picture=SHA, denoising=0.5)), inputs(), source=scene())
    assert set(acting(card)) == {(1, 1)}


@pytest.mark.nightly
def test_pictures_rendered_together_are_bit_for_bit_what_they_are_alone(
    engine: Engine, small: Small, inputs: Inputs
) -> None:
    early, weak = inputs("plus", scene(64, 96), end=0.7), inputs("plain", scene(90, 64), weight=0.4)
    pair = inputs("plus", scene(64, 64), scene(32, 80), weight=0.8)
    sets = [(), (early,), (weak,), (pair,), (early, weak), (weak, pair, early), (pair, pair), ()]
    jobs = [
        (params(seed=seed, steps=3, prompt="sea " * (40 * (seed % 3))), Kit(small("sd1"), ip_adapters=given))
        for seed, given in enumerate(sets * 3)
    ]
    alone = [engine.render(render(*job)).result(SECONDS) for job in jobs]
    together = [engine.render(render(*job)) for job in jobs]
    assert all(np.array_equal(one, run.result(SECONDS)) for one, run in zip(alone, together, strict=True))
    assert len({one.tobytes() for one in alone}) == len(jobs)


def test_what_does_not_fit_is_refused_before_a_picture_is_read(small: Small, inputs: Inputs) -> None:
    card = Card()
    with pytest.raises(RenderError, match="IP-Adapter plain was made for"):
        card.run(render(params(), Kit(small("sdxl"), ip_adapters=(inputs(),))))
    assert not [request for request in card.requests if isinstance(request, Apply)]
