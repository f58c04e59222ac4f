"""A picture's noise, against published figures and the formulas written out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from shared.params.groups import Noise
from shared.params.render import RenderParams
from worker.engine.architectures.base import Architecture
from worker.engine.sampling.noise import ImageNoise, centred, slerp
from worker.engine.sampling.philox import normals, philox

ORACLES = json.loads((Path(__file__).parents[2] / "data" / "oracles" / "philox.json").read_text())["cases"]
SOURCES = ["CPU", "NV"]


def image_noise(seed: int = 7, *, width: int = 64, height: int = 96, **noise: object) -> ImageNoise:
    return ImageNoise(seed, Noise(**noise), Architecture.latent, width, height)


def first(seed: int = 7, **options: object) -> torch.Tensor:
    return image_noise(seed, **options).first()


@pytest.mark.parametrize("case", ORACLES, ids=lambda case: f"seed {case['seed']}")
def test_the_portable_source_gives_the_known_figures(case: dict) -> None:
    assert normals(case["seed"], 0, (6,)).tolist() == pytest.approx(case["first_six"], abs=1e-5)
    start = first(case["seed"], source="NV").flatten()
    assert start[:6].tolist() == pytest.approx(case["first_six"], abs=1e-5)


def test_philox_gives_the_words_that_its_authors_publish() -> None:
    """Random123's known answers: counter and key 0; and the counter's first and third word alone."""
    assert [int(words[0]) for words in philox(0, 0, 1)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_the_portable_source_draws_unit_normals_that_do_not_repeat() -> None:
    values = normals(3, 0, (4, 200, 200))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs((values * normals(3, 1, (4, 200, 200))).mean()) < 0.01
    assert abs((values * normals(3 + 2**32, 0, (4, 200, 200))).mean()) < 0.01


def test_the_hosts_source_is_torchs_generator_draw_by_draw() -> None:
    generator = torch.Generator().manual_seed(2**53 - 1)
    expected = [torch.randn((4, 12, 8), generator=generator) for _ in range(3)]
    noise = image_noise(2**53 - 1)
    assert torch.equal(noise.first(), expected[0])
    assert torch.equal(noise.next(), expected[1])
    assert torch.equal(image_noise(2**53 - 1).draws(3), torch.stack(expected))


@pytest.mark.parametrize("seed", [2**53 + 1, 5441180189181032878, 2**63 + 7, 2**64 - 1])
def test_a_seed_counts_to_its_last_digit(seed: int) -> None:
    assert torch.equal(first(seed), first(seed % 2**32))  # torch's generator takes the low 32 bits
    assert not torch.equal(first(seed), first(seed - 1))
    assert not torch.equal(first(seed, source="NV"), first(seed % 2**32, source="NV"))  # a card's takes all 64


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("seed", "delta"), [(2**64 - 1, 31337), (5, -31337), (0, -(2**64 - 1))])
def test_a_delta_may_leave_the_range_of_seeds(source: str, seed: int, delta: int) -> None:
    noise = image_noise(seed, source=source, eta_seed_delta=delta)
    noise.first()
    assert torch.equal(noise.next(), first((seed + delta) % 2**64, source=source))


@pytest.mark.parametrize("source", SOURCES)
def test_draws_of_one_picture_differ_and_come_again(source: str) -> None:
    draws = image_noise(source=source).draws(3)
    assert torch.equal(draws, image_noise(source=source).draws(3))
    assert len({float(draw.sum()) for draw in draws}) == 3
    assert draws.dtype == torch.float32


# Variation.


@pytest.mark.parametrize("source", SOURCES)
def test_a_variation_leans_from_one_seed_to_the_other(source: str) -> None:
    own, others = first(7, source=source), first(8, source=source)
    ends = [first(7, source=source, variation_seed=8, variation_strength=share) for share in (1e-9, 1.0)]
    torch.testing.assert_close(ends[0], own)
    assert torch.equal(ends[1], others)
    halfway = first(7, source=source, variation_seed=8, variation_strength=0.5)
    to_ends = [float((halfway - end).norm()) for end in (own, others)]
    assert to_ends[0] == pytest.approx(to_ends[1], rel=0.1)
    assert float(halfway.norm()) == pytest.approx(float(own.norm()), rel=0.1)  # on the sphere, not through it


def test_a_variation_goes_along_the_great_circle_of_each_column() -> None:
    low, high = first(7), first(8)
    result = slerp(0.3, low, high)
    for channel in range(4):
        for column in range(8):
            one, other = low[channel, :, column].double(), high[channel, :, column].double()
            angle = math.acos(float(one @ other / one.norm() / other.norm()))
            expected = (math.sin(0.7 * angle) * one + math.sin(0.3 * angle) * other) / math.sin(angle)
            torch.testing.assert_close(result[channel, :, column].double(), expected, rtol=1e-4, atol=1e-5)


def test_between_two_that_are_alike_the_ends_are_swapped() -> None:
    low = first(7)
    torch.testing.assert_close(slerp(0.3, low, low * 2), low * 0.3 + low * 2 * 0.7)


def test_a_variation_of_a_seed_to_itself_is_its_own_noise() -> None:
    torch.testing.assert_close(first(7, variation_seed=7, variation_strength=0.4), first(7))


def test_columns_of_a_single_cell_have_a_variation_too() -> None:
    options = {"variation_seed": 8, "variation_strength": 0.4, "resize_width": 8, "resize_height": 8}
    assert first(7, **options).isfinite().all()
    assert float(first(7, **options).abs().max()) < 10


@pytest.mark.parametrize("source", SOURCES)
def test_only_the_start_is_varied(source: str) -> None:
    varied = image_noise(source=source, variation_seed=8, variation_strength=0.5).draws(3)
    plain = image_noise(source=source).draws(3)
    assert not torch.equal(varied[0], plain[0])
    assert torch.equal(varied[1:], plain[1:])


def test_images_of_a_job_count_their_seeds_up() -> None:
    params = RenderParams(seed=40, count=5)
    varied = RenderParams(seed=40, count=5, noise=Noise(variation_seed=90, variation_strength=0.2))
    assert [params.image(index).seed for index in range(3)] == [40, 41, 42]
    assert {varied.image(index).seed for index in range(3)} == {40}
    assert [varied.image(index).noise.variation_seed for index in range(3)] == [90, 91, 92]


# Another size.


@pytest.mark.parametrize("source", SOURCES)
def test_a_larger_picture_keeps_the_smaller_ones_noise_in_its_middle(source: str) -> None:
    small, plain = first(width=32, height=48, source=source), first(source=source)
    resized = first(source=source, resize_width=32, resize_height=48)
    assert torch.equal(resized[:, 3:9, 2:6], small)
    border = torch.ones(12, 8, dtype=torch.bool)
    border[3:9, 2:6] = False
    assert torch.equal(resized[:, border], plain[:, border])


def test_a_smaller_picture_shows_the_middle_of_the_larger_ones_noise() -> None:
    large = first(width=128, height=192)
    assert torch.equal(first(resize_width=128, resize_height=192), large[:, 6:18, 4:12])


def test_a_size_that_is_larger_one_way_and_smaller_the_other_meets_in_the_middle() -> None:
    other = first(width=128, height=48)
    assert torch.equal(first(resize_width=128, resize_height=48)[:, 3:9, :], other[:, :, 4:12])


@pytest.mark.parametrize(("width", "height"), [(64, 96), (0, 48), (32, 0)])
def test_its_own_size_or_half_a_size_changes_nothing(width: int, height: int) -> None:
    assert torch.equal(first(resize_width=width, resize_height=height), first())


def test_another_size_changes_no_later_draw() -> None:
    resized = image_noise(resize_width=32, resize_height=48).draws(3)
    assert torch.equal(resized[1:], image_noise().draws(3)[1:])


def test_what_is_put_into_the_middle_changes_nothing_in_place() -> None:
    ground = torch.zeros(4, 6, 6)
    centred(torch.ones(4, 2, 2), ground)
    assert not ground.any()


# Another seed for what follows.


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("delta", [31337, -31337])
def test_later_noise_is_that_of_the_seed_moved(source: str, delta: int) -> None:
    moved = image_noise(7, source=source, eta_seed_delta=delta).draws(3)
    assert torch.equal(moved[0], first(7, source=source))
    assert torch.equal(moved[1:], image_noise(7 + delta, source=source).draws(2))
