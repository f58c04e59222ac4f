"""Masks: blur, frames, filling and laying over, against the page's cases and plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.media import framing
from shared.media.framing import Box
from worker.engine.images import masks


def rectangle(left: int, top: int, right: int, bottom: int, side: int = 512) -> NDArray[np.uint8]:
    """A mask set from one corner to the other, both included."""
    mask = np.zeros((side, side), np.uint8)
    mask[top : bottom + 1, left : right + 1] = 255
    return mask


# Frames.

WIDE, CORNER = rectangle(100, 200, 227, 231), rectangle(480, 0, 511, 31)


@pytest.mark.parametrize(
    ("mask", "size", "padding", "expected"),
    [
        (WIDE, (128, 32), 0, (100, 200, 228, 232)),
        (WIDE, (512, 512), 0, (100, 152, 228, 280)),
        (WIDE, (512, 768), 32, (68, 72, 260, 360)),
        (CORNER, (512, 512), 32, (448, 0, 512, 64)),
        (CORNER, (768, 512), 32, (416, 0, 512, 64)),
        (rectangle(0, 0, 511, 511), (512, 512), 32, (0, 0, 512, 512)),
        (rectangle(0, 100, 511, 110), (64, 512), 0, (0, 0, 512, 512)),  # no room for these proportions
        (rectangle(3, 4, 3, 4), (512, 512), 0, (3, 4, 4, 5)),
    ],
)
def test_the_frame_is_the_pages(
    mask: NDArray[np.uint8], size: tuple[int, int], padding: int, expected: tuple[int, ...]
) -> None:
    assert framing.frame(mask, *size, padding) == expected


def test_a_blank_mask_has_no_frame() -> None:
    assert framing.frame(np.zeros((8, 8), np.uint8), 8, 8, 32) is None


def test_a_box_knows_its_size() -> None:
    assert Box(3, 4, 10, 6).size == (7, 2)


# Blur.


def gaussian(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """One line under a Gaussian of 2 * int(2.5 * sigma + 0.5) + 1 taps, its ends mirrored: written out."""
    reach = int(2.5 * sigma + 0.5)
    taps = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-reach, reach + 1)]
    last = len(values) - 1
    return np.array(
        [
            sum(
                tap * values[min(abs(place + offset), 2 * last - abs(place + offset))]
                for tap, offset in zip(taps, range(-reach, reach + 1), strict=True)
            )
            / sum(taps)
            for place in range(len(values))
        ]
    )


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_blur_is_a_gaussian_along_both_axes(sigma: float) -> None:
    mask = rectangle(12, 20, 30, 25, side=40)
    across = np.apply_along_axis(gaussian, 1, mask.astype(float), sigma)
    expected = np.apply_along_axis(gaussian, 0, across, sigma)
    assert np.abs(masks.blurred(mask, sigma) - expected).max() <= 0.51


def test_no_blur_leaves_a_mask_as_it_is() -> None:
    assert masks.blurred(WIDE, 0) is WIDE


def test_a_blur_may_reach_over_the_whole_mask_and_beyond() -> None:
    result = masks.blurred(rectangle(0, 0, 3, 7, side=8), 64)
    assert result.shape == (8, 8)
    assert 100 < result.mean() < 155


# Filling and laying over.


def test_filling_paints_what_is_masked_in_the_colours_around_it() -> None:
    picture = np.full((64, 64, 3), (200, 40, 10), np.uint8)
    mask = rectangle(20, 20, 43, 43, side=64)
    picture[mask > 0] = (0, 0, 255)
    filled = masks.filled(picture, mask)
    assert np.array_equal(filled[mask == 0], picture[mask == 0])
    assert np.abs(filled[mask > 0].astype(int) - (200, 40, 10)).max() <= 8


def test_filling_all_of_a_picture_leaves_nothing_of_it() -> None:
    assert masks.filled(np.full((16, 16, 3), 99, np.uint8), np.full((16, 16), 255, np.uint8)).max() == 0


def test_the_original_comes_back_by_what_the_mask_leaves() -> None:
    picture, original = np.full((1, 3, 3), 200, np.uint8), np.full((1, 3, 3), 100, np.uint8)
    result = masks.laid_over(picture, original, np.array([[0, 128, 255]], np.uint8))
    assert result[0, :, 0].tolist() == [100, 150, 200]


def test_a_cell_holds_the_share_of_its_pixels_that_is_masked() -> None:
    mask = np.zeros((16, 8), np.uint8)
    mask[:4] = 255
    assert masks.cells(mask, 8).tolist() == [[[0.5], [0.0]]]
