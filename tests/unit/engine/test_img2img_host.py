"""The host's part of img2img: what a render is given to work on, and how its result is laid back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import RenderError
from shared.media import arrays
from shared.media.framing import Box
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from worker.engine.architectures.base import Architecture
from worker.engine.images import masks
from worker.engine.pipelines import img2img_host
from worker.engine.pipelines.img2img_host import Canvas
from worker.engine.pipelines.inputs import Kit

SHA = "0" * 64


def picture(height: int = 64, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


PATCH = Box(16, 24, 40, 48)


def patch(height: int = 64, width: int = 64, at: Box = PATCH) -> NDArray[np.uint8]:
    mask = np.zeros((height, width), np.uint8)
    mask[at.top : at.bottom, at.left : at.right] = 255
    return mask


def prepared(
    source: NDArray[np.uint8] | None,
    mask: NDArray[np.uint8] | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    how: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Canvas, Img2Img]:
    wanted = Img2Img(
        picture=SHA, mask=Mask(picture=SHA, **{"blur": 0.0, **how}) if how is not None else None, **options
    )
    params = RenderParams(width=size[0], height=size[1], img2img=wanted)
    weights: Any = SimpleNamespace(latent=Architecture.latent)
    kit = Kit(weights, source=source, mask=mask)
    return img2img_host.prepared(params, wanted, kit), wanted


def test_a_picture_to_start_from_is_brought_to_the_renders_size() -> None:
    ready, _ = prepared(picture(90, 120), size=(72, 64), resize_mode="crop")
    assert np.array_equal(ready.start, arrays.resized(picture(90, 120), 72, 64, "crop"))
    assert ready.mask is None


def test_a_latent_is_resized_after_it_was_encoded_in_whole_cells() -> None:
    ready, _ = prepared(picture(99, 133), size=(72, 64), resize_mode="latent")
    assert ready.start.shape == (96, 128, 3)
    assert ready.shown.shape == (64, 72, 3)


@pytest.mark.parametrize(("source", "how", "what"), [(None, None, "picture"), (picture(), {}, "mask")])
def test_what_is_missing_is_named(source: NDArray[np.uint8] | None, how: dict[str, Any] | None, what: str) -> None:
    with pytest.raises(RenderError, match=f"the {what}.* is missing"):
        prepared(source, None, how=how)


@pytest.mark.parametrize("area", ["whole picture", "only masked"])
@pytest.mark.parametrize(("mask", "invert"), [(0, False), (255, True)])
def test_a_mask_that_leaves_nothing_to_paint_is_none(area: str, mask: int, invert: bool) -> None:  # noqa: FBT001
    ready, _ = prepared(picture(), np.full((64, 64), mask, np.uint8), how={"area": area, "invert": invert})
    plain, _ = prepared(picture())
    assert ready.mask is None
    assert np.array_equal(ready.start, plain.start)


def test_a_mask_of_another_size_is_stretched_over_the_picture() -> None:
    ready, _ = prepared(picture(), patch(128, 128, Box(32, 48, 80, 96)), how={})
    assert ready.mask is not None
    assert np.array_equal(ready.mask > 128, patch() > 0)


def test_a_mask_may_be_turned_round() -> None:
    ready, _ = prepared(picture(), patch(), how={"invert": True})
    assert np.array_equal(ready.mask, 255 - patch())


def test_what_is_masked_may_be_filled_in_before_it_is_painted() -> None:
    ready, _ = prepared(picture(), patch(), how={"content": "fill"})
    assert np.array_equal(ready.start, masks.filled(picture(), patch()))
    assert np.array_equal(ready.shown, picture())


# The way back.


def test_outside_of_the_mask_the_original_comes_back() -> None:
    ready, options = prepared(picture(), patch(), how={})
    result = img2img_host.finished(ready, picture(seed=1), options)
    inside = patch() > 0
    assert np.array_equal(result[~inside], picture()[~inside])
    assert np.array_equal(result[inside], picture(seed=1)[inside])


def test_where_a_blurred_mask_is_half_set_nothing_of_the_original_is_seen() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    ready, options = prepared(black, patch(), how={"blur": 4.0})
    result = img2img_host.finished(ready, white, options)[..., 0]
    expected = np.minimum(2 * masks.blurred(patch(), 4).astype(int), 255)
    assert np.array_equal(result, expected)


def test_a_soft_mask_lays_over_what_it_says() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    ready, options = prepared(black, patch(), how={"blur": 4.0, "soft": True})
    assert np.array_equal(img2img_host.finished(ready, white, options)[..., 0], masks.blurred(patch(), 4))


def test_only_the_masked_part_is_rendered_at_full_size_and_put_back() -> None:
    source, mask = picture(200, 300), patch(200, 300, Box(100, 50, 130, 80))
    ready, options = prepared(source, mask, how={"area": "only masked", "padding": 10})
    assert ready.box == Box(90, 40, 140, 90)
    assert ready.start.shape == (64, 64, 3)
    result = img2img_host.finished(ready, np.full((64, 64, 3), 77, np.uint8), options)
    assert result.shape == source.shape
    assert np.array_equal(result[mask == 0], source[mask == 0])
    assert (result[mask > 0] == 77).all()


def test_a_close_up_keeps_its_proportions_where_there_is_no_room_for_the_renders() -> None:
    source, mask = picture(40, 300), patch(40, 300, Box(100, 0, 200, 40))
    ready, options = prepared(source, mask, size=(64, 128), how={"area": "only masked", "padding": 0})
    assert ready.box == Box(100, 0, 200, 40)
    result = img2img_host.finished(ready, arrays.resized(source[:, 100:200], 64, 128, "fill"), options)
    assert np.abs(result.astype(int) - source).mean() < 30  # enlarged and reduced again, in place


def test_colours_are_taken_from_the_picture_that_was_shown() -> None:
    source = picture() // 4
    ready, options = prepared(source, color_correction=True)
    result = img2img_host.finished(ready, picture(seed=1), options)
    assert result.mean() == pytest.approx(source.mean(), abs=2)
    plain, options = prepared(source)
    assert np.array_equal(img2img_host.finished(plain, picture(seed=1), options), picture(seed=1))


def test_the_original_is_laid_over_after_the_colours_were_matched() -> None:
    source = picture() // 4
    ready, options = prepared(source, patch(), how={}, color_correction=True)
    result = img2img_host.finished(ready, picture(seed=1), options)
    assert np.array_equal(result[patch() == 0], source[patch() == 0])
    assert result[patch() > 0].mean() == pytest.approx(source.mean(), abs=10)
