"""Pictures as control nets want them, against what each way is defined to be."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from shared.media.arrays import Pixels
from shared.media.preprocessors import canny
from shared.params.controlnet import ControlUnit
from shared.params.preprocessors import PREPROCESSORS
from worker.engine.images.preprocessors import hint


def unit(preprocessor: str, **how: object) -> ControlUnit:
    return ControlUnit.model_validate({"model": "net", "preprocessor": preprocessor, **how})


def noise(height: int = 40, width: int = 56) -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def steps(*levels: int, width: int = 8) -> Pixels:
    """A picture of upright stripes."""
    row = np.repeat(np.array(levels, np.uint8), width)
    return np.repeat(np.repeat(row[None], 16, axis=0)[..., None], 3, axis=2)


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_every_hint_has_the_size_of_its_picture_in_0_to_1(name: str) -> None:
    made = hint(noise(), None, unit(name))
    assert made.shape == (3, 40, 56)
    assert made.dtype == torch.float32
    assert 0 <= float(made.min()) < float(made.max()) <= 1


def test_a_picture_as_given_stays_as_it_is() -> None:
    assert torch.equal((hint(noise(), None, unit("none")) * 255).byte(), torch.from_numpy(noise()).permute(2, 0, 1))


def test_an_edge_is_as_wide_as_one_pixel_and_lies_beside_the_step() -> None:
    edges = canny(steps(0, 255), 100, 200)
    assert set(np.unique(edges)) == {0, 255}
    assert [int(column) for column in np.flatnonzero(edges[8, :, 0])] == [7]
    assert np.array_equal(canny(steps(0, 255).swapaxes(0, 1), 100, 200), edges.swapaxes(0, 1))


def test_a_weak_edge_counts_only_where_it_is_connected_to_a_strong_one() -> None:
    """A step of 30 has the gradient 120."""
    weak = steps(0, 30)
    assert not canny(weak, 100, 200).any()
    assert canny(weak, 100, 110).any()
    assert canny(weak, 110, 100).any()
    fading = np.zeros((32, 16, 3), np.uint8)
    fading[:, 8:] = (60 - np.arange(32, dtype=np.uint8))[:, None, None]  # from 60 to 29
    assert canny(fading, 100, 200)[1:-1].any(axis=(1, 2)).all()
    assert not canny(fading, 100, 300).any()
    assert not canny(fading, 150, 200)[28:].any()


def test_edges_follow_the_colour_that_changes_most_and_every_direction() -> None:
    blue = steps(0, 255) * np.array([0, 0, 1], np.uint8)
    assert np.array_equal(canny(blue, 100, 200), canny(steps(0, 255), 100, 200))
    rows, columns = np.mgrid[:64, :64]
    disc = np.where((rows - 31.5) ** 2 + (columns - 31.5) ** 2 < 400, 255, 0).astype(np.uint8)
    edges = canny(np.repeat(disc[..., None], 3, axis=2), 100, 200)[..., 0] > 0
    away = np.abs(np.hypot(rows - 31.5, columns - 31.5)[edges] - 20)
    assert away.max() < 1.5
    assert 100 < edges.sum() < 160  # its circumference is 126


def test_the_edges_of_a_long_winding_path_are_found_in_seconds() -> None:
    picture = np.zeros((1024, 1024, 3), np.uint8)
    picture[::4] = 30  # weak lines, joined at alternate ends
    picture[:, -4:] = 30
    picture[0, 0] = 255
    started = time.perf_counter()
    canny(picture, 50, 200)
    assert time.perf_counter() - started < 10


def test_other_ways_do_what_they_are_called() -> None:
    pixels = noise()
    assert torch.allclose(hint(pixels, None, unit("invert")), 1 - hint(pixels, None, unit("none")))
    grey = hint(pixels, None, unit("grey"))
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[0], grey[2])
    black_and_white = hint(pixels, None, unit("threshold", threshold_a=100))
    assert set(black_and_white.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(black_and_white[0] == 1, grey[0] > 100.5 / 255)
    rough, smooth = (hint(pixels, None, unit("blur", threshold_a=sigma)).std() for sigma in (0.1, 6))
    assert float(smooth) < float(rough) / 4
    assert float(hint(pixels, None, unit("tile", threshold_a=4)).std()) < float(rough) / 2
    assert torch.equal(hint(pixels, None, unit("tile")), hint(pixels, None, unit("none")))


def test_an_inpainting_net_sees_minus_one_where_the_mask_is() -> None:
    mask = np.zeros((40, 56), np.uint8)
    mask[10:20, 20:30] = 255
    made = hint(noise(), mask, unit("inpaint"))
    assert bool((made[:, 10:20, 20:30] == -1).all())
    made[:, 10:20, 20:30] = hint(noise(), None, unit("none"))[:, 10:20, 20:30]
    assert torch.equal(made, hint(noise(), mask, unit("none")))


@pytest.mark.parametrize(
    ("preprocessor", "given", "expected"),
    [
        ("canny", {}, (100, 200)),
        ("canny", {"threshold_b": 50}, (100, 50)),
        ("none", {"threshold_a": 5}, (0, 0)),
        ("blur", {"threshold_a": 2}, (2, 0)),
    ],
)
def test_thresholds_are_the_usual_ones_unless_they_are_given(
    preprocessor: str, given: dict[str, float], expected: tuple[float, float]
) -> None:
    assert unit(preprocessor, **given).thresholds == expected
