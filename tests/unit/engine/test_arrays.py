"""Pictures on the host: opening, resizing, and colours, against published figures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shared.media import arrays
from shared.params.fields import ResizeMode
from worker.engine.images import colours, tensors


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# Opening.


def test_what_shows_through_shows_white() -> None:
    half_black = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    half_black.putpixel((1, 0), (0, 0, 0, 255))
    assert arrays.flattened(half_black).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pictures_of_any_kind_become_three_bytes_a_pixel(mode: str) -> None:
    picture = arrays.flattened(Image.new("RGB", (3, 2), "white").convert(mode))
    assert picture.shape == (2, 3, 3)
    assert (picture == 255).all()


def test_sixteen_bits_are_scaled_not_cut() -> None:
    grey = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert arrays.flattened(grey)[0, :, 0].tolist() == [0, 128, 255]


def test_a_mask_is_set_above_the_threshold() -> None:
    grey = Image.fromarray(np.array([[0, 128, 129, 255]], np.uint8))
    assert arrays.mask(grey).tolist() == [[0, 0, 255, 255]]


@pytest.mark.parametrize("least", [129, 250, 254, 255])
def test_a_mask_that_is_nearly_opaque_everywhere_is_read_by_its_brightness(least: int) -> None:
    drawn = np.zeros((1, 3, 4), np.uint8)
    drawn[..., 3] = [255, least, 255]
    drawn[0, 2, :3] = 255
    assert arrays.mask(Image.fromarray(drawn)).tolist() == [[0, 0, 255]]


def test_a_mask_that_shows_through_is_read_by_its_alpha_whatever_its_colour() -> None:
    strokes = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    strokes.putpixel((1, 0), (0, 0, 0, 255))
    strokes.putpixel((2, 0), (255, 255, 255, 100))
    assert arrays.mask(strokes).tolist() == [[0, 255, 0]]


def test_an_opaque_mask_is_read_by_its_brightness() -> None:
    drawn = Image.new("RGBA", (2, 1), "black")
    drawn.putpixel((1, 0), (255, 255, 255, 255))
    assert arrays.mask(drawn).tolist() == [[0, 255]]


# Sizes.


def landscape() -> NDArray[np.uint8]:
    """800 x 600: red to the right, green downwards."""
    ramp = np.zeros((600, 800, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 800)[None]
    ramp[..., 1] = np.linspace(0, 255, 600)[:, None]
    return ramp


def test_resize_stretches_to_the_size() -> None:
    result = arrays.resized(landscape(), 512, 512)
    assert result.shape == (512, 512, 3)
    assert result[0, 0, 0] < 3
    assert result[0, -1, 0] > 252


def test_crop_covers_and_cuts_the_same_on_both_sides() -> None:
    result = arrays.resized(landscape(), 512, 512, "crop")
    inner = np.asarray(Image.fromarray(landscape()).resize((682, 512), Image.Resampling.LANCZOS))
    assert np.array_equal(result, inner[:, 85:597])


def test_fill_fits_and_draws_the_edges_out() -> None:
    result = arrays.resized(landscape(), 512, 512, "fill")
    inner = np.asarray(Image.fromarray(landscape()).resize((512, 384), Image.Resampling.LANCZOS))
    assert np.array_equal(result[64:448], inner)
    assert (result[:64] == inner[0]).all()
    assert (result[448:] == inner[-1]).all()


@pytest.mark.parametrize("mode", ["resize", "crop", "fill", "latent"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (64, 64)])
def test_any_picture_comes_to_any_size(mode: ResizeMode, size: tuple[int, int]) -> None:
    assert arrays.resized(noise(*size), 72, 64, mode).shape == (64, 72, 3)


@pytest.mark.parametrize("mode", ["resize", "crop", "fill"])
def test_a_picture_of_the_size_asked_for_stays(mode: ResizeMode) -> None:
    assert np.array_equal(arrays.resized(noise(64, 72), 72, 64, mode), noise(64, 72))


def test_a_mask_is_resized_as_a_picture_is() -> None:
    mask = landscape()[..., 0]
    for mode in ("resize", "crop", "fill"):
        assert np.array_equal(arrays.resized(mask, 96, 64, mode), arrays.resized(landscape(), 96, 64, mode)[..., 0])


def test_nearest_enlarges_in_blocks() -> None:
    small = noise(4, 6)
    assert np.array_equal(arrays.enlarged(small, 18, 12, is_nearest=True), small.repeat(3, 0).repeat(3, 1))


def test_bytes_come_back_from_a_tensor_as_they_were() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = tensors.to_tensor(every)
    assert tensor.shape == (3, 16, 16)
    assert (float(tensor.min()), float(tensor.max())) == (-1, 1)
    assert np.array_equal(tensors.levels(tensor).byte().permute(1, 2, 0).numpy(), every)


# Colours.


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # Lindbloom's calculator, sRGB and D65
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.2408, 80.0925, 67.2032)),
        ((0, 255, 0), (87.7347, -86.1827, 83.1793)),
        ((0, 0, 255), (32.2970, 79.1875, -107.8602)),
        ((128, 128, 128), (53.5850, 0.0, 0.0)),
    ],
)
def test_lab_values_are_the_published_ones(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    assert colours.to_lab(np.array([rgb], np.uint8))[0] == pytest.approx(lab, abs=2e-3)


def test_every_colour_comes_back_from_lab() -> None:
    picture = noise(64, 64)
    assert np.array_equal(colours.from_lab(colours.to_lab(picture)), picture)


def test_a_picture_matched_to_itself_stays() -> None:
    assert np.array_equal(colours.matched(noise(32, 32), noise(32, 32)), noise(32, 32))


def test_a_matched_picture_has_the_sources_colours_in_its_own_places() -> None:
    picture, source = noise(64, 64, seed=1) // 2, 128 + noise(64, 64, seed=2) // 2
    result = colours.to_lab(colours.matched(picture, source))
    ours, theirs = colours.to_lab(picture), colours.to_lab(source)
    for share in (5, 25, 50, 75, 95):
        assert np.percentile(result[..., 0], share) == pytest.approx(np.percentile(theirs[..., 0], share), abs=1.5)
    order, before = result[..., 0].ravel().argsort(), ours[..., 0].ravel().argsort()
    assert np.corrcoef(order.argsort(), before.argsort())[0, 1] > 0.95
