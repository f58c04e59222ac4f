"""Company of a picture changes nothing in it: over all samplers, in any order, on any worker, and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from shared.params.groups import Guidance, Noise, Sampling
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS
from worker.engine.architectures.weights import Weights
from worker.engine.devices import Device
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import Picture, render

SECONDS = 120
ADAPTIVE = "DPM adaptive"  # decides by its error, which rounds with the company: it promises sameness in exact mode

Params = Sequence[RenderParams]
Paint = Callable[[Params], list[Picture]]


@pytest.fixture(scope="module")
def base(tiny: Weights) -> RenderParams:
    size = tiny.native_size
    return RenderParams(
        prompt="sea at night", checkpoint="tiny", width=size, height=size, steps=4, cfg_scale=2.5, seed=7
    )


@pytest.fixture(scope="module", params=[3, pytest.param(1, marks=pytest.mark.nightly)], ids=("some", "all"))
def mixed(request: pytest.FixtureRequest, base: RenderParams) -> list[RenderParams]:
    """A picture by each sampler or every third, prompts of several lengths, and other ways to noise and to guidance."""
    prompts = ["sea at night", "red sailboat, " * 30, "moon AND desert :0.4", "[sun:snow:0.5], (sea:1.3)"]
    pictures = [
        base.model_copy(update={"sampler": name, "prompt": prompts[place % 4], "seed": place})
        for place, name in enumerate(sorted(SAMPLERS))
        if name != ADAPTIVE
    ]
    options: list[dict[str, Any]] = [
        {"sampler": "Euler a", "noise": Noise(source="NV", eta_seed_delta=31337)},
        {"sampler": "DPM++ SDE", "noise": Noise(source="NV", variation_seed=3, variation_strength=0.4)},
        {"sampler": "Heun", "sampling": Sampling(s_churn=3.0), "noise": Noise(resize_width=32, resize_height=32)},
        {"sampler": "Euler", "guidance": Guidance(rescale=0.7, skip_below_sigma=2.0)},
        {"sampler": "Euler a", "tiling": "both"},
        {"sampler": "DDIM", "cfg_scale": 1.0},
    ]
    return [*pictures[:: request.param], *(base.model_copy(update=changes) for changes in options)]


def painter(engine: Engine, weights: Weights, *, exact: bool = False) -> Paint:
    """Paints pictures that are all in flight together."""

    def paint(params: Params) -> list[Picture]:
        runs = [engine.render(render(one, Kit(weights)), exact=exact) for one in params]
        return [run.result(SECONDS) for run in runs]

    return paint


@pytest.fixture(scope="module")
def alone(mixed: Params, tiny: Weights, cpu: Device) -> list[Picture]:
    """Each picture by itself, one after the other."""
    engine = Engine(cpu)
    engine.start()
    pictures = [painter(engine, tiny)([params])[0] for params in mixed]
    engine.stop()
    return pictures


def assert_same(pictures: Sequence[Picture], expected: Sequence[Picture], params: Params) -> None:
    for picture, other, one in zip(pictures, expected, params, strict=True):
        assert np.array_equal(picture, other), one


def test_pictures_differ_by_what_they_are_made_of(alone: Sequence[Picture]) -> None:
    assert len({picture.tobytes() for picture in alone}) == len(alone)


@pytest.mark.nightly
def test_all_together_each_is_what_it_is_alone(
    engine: Engine, tiny: Weights, mixed: Params, alone: Sequence[Picture]
) -> None:
    assert_same(painter(engine, tiny)(mixed), alone, mixed)


def test_in_another_order_beside_others_and_again_each_is_what_it_is_alone(
    engine: Engine, tiny: Weights, mixed: Params, alone: Sequence[Picture]
) -> None:
    """On another engine than the first time, as after a retry on another worker."""
    paint = painter(engine, tiny)
    others = [one.model_copy(update={"seed": one.seed + 100, "steps": 3}) for one in mixed[::3]]
    backwards = paint([*others, *reversed(mixed)])[len(others) :]
    assert_same(backwards[::-1], alone, mixed)


EXACT = ["Euler a", "DPM++ SDE", ADAPTIVE]


@pytest.mark.nightly
def test_exact_pictures_are_the_same_to_the_bit_in_any_company(
    engine: Engine, tiny: Weights, base: RenderParams, mixed: Params
) -> None:
    paint = painter(engine, tiny, exact=True)
    exact = [base.model_copy(update={"sampler": name, "cfg_scale": 1.0}) for name in EXACT]
    exact.append(base.model_copy(update={"prompt": "moon, " * 40}))
    expected = [paint([params])[0] for params in exact]
    company = [engine.render(render(one, Kit(tiny))) for one in mixed[:4]]
    among = paint(exact[::-1])[::-1]
    for picture, other, params in zip(among, expected, exact, strict=True):
        assert np.array_equal(picture, other), params.sampler
    for run in company:
        run.result(SECONDS)
