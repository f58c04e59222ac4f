"""The estimated cost and memory of an image: rows x model calls x latent cells."""

from __future__ import annotations

import pytest

from shared.params.groups import Hires
from shared.params.img2img import Img2Img
from shared.params.render import RenderParams
from shared.queue.submit import cost, memory_class

CELLS = 64 * 64  # of 512x512


def params(**changes: object) -> RenderParams:
    return RenderParams(**({"width": 512, "height": 512, "sampler": "Euler", "steps": 20} | changes))


def started(denoising: float, *, exact_steps: bool = False) -> Img2Img:
    return Img2Img(picture="a" * 64, denoising=denoising, exact_steps=exact_steps)


@pytest.mark.parametrize(
    ("changes", "calls_of_one_row"),
    [
        ({}, 40),
        ({"cfg_scale": 1.0}, 20),
        ({"cfg_scale": 1.0, "sampler": "DDIM CFG++"}, 38),
        ({"sampler": "Heun"}, 78),
        ({"sampler": "DDIM"}, 38),
        ({"prompt": "a cat AND a dog AND a hat"}, 80),
        ({"negative_prompt": "a cat AND a dog"}, 40),
        ({"img2img": started(0.5)}, 22),
        ({"img2img": started(0.0)}, 2),
        ({"img2img": started(0.5, exact_steps=True)}, 40),
        ({"img2img": started(0.5), "sampler": "Heun"}, 42),
    ],
)
def test_cost_counts_rows_and_model_calls(changes, calls_of_one_row):
    assert cost(params(**changes)) == calls_of_one_row * CELLS


def test_a_picture_that_stays_as_it_is_still_costs_something():
    assert cost(params(img2img=started(0.0, exact_steps=True))) == 1


@pytest.mark.parametrize(
    ("hires", "second"),
    [
        (Hires(), 40 * 4 * CELLS),
        (Hires(steps=5), 10 * 4 * CELLS),
        (Hires(sampler="Heun"), 78 * 4 * CELLS),
        (Hires(prompt="a AND b"), 60 * 4 * CELLS),
        (Hires(width=1024, height=512), 40 * 2 * CELLS),
        (Hires(denoising=0.0), 0),
    ],
)
def test_cost_counts_the_second_pass_at_its_size(hires, second):
    assert cost(params(hires=hires)) == 40 * CELLS + second


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 12),
        ({"width": 520}, 13),
        ({"width": 64, "height": 64}, 6),
        ({"hires": Hires()}, 14),
        ({"hires": Hires(width=64, height=64)}, 12),
    ],
)
def test_memory_class_is_that_of_the_largest_latent(changes, expected):
    assert memory_class(params(**changes)) == expected
