"""Pictures as image encoders read them, beside transformers' own preparation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from worker.engine.images.clip_input import clip_input


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        (64, 64, 64),
        (300, 400, 224),
        (401, 299, 224),
        (30, 41, 224),
        (7, 7, 56),
        (97, 351, 224),
        (333, 90, 57),
        (1, 9, 8),
    ],
)
def test_a_picture_is_prepared_bit_for_bit_as_transformers_does(height: int, width: int, side: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    found = clip_input(pixels, side)
    expected = CLIPImageProcessorPil(size=side, crop_size=side)(Image.fromarray(pixels), return_tensors="pt")
    assert (found.dtype, found.shape) == (torch.float32, (3, side, side))
    assert torch.equal(found, expected["pixel_values"][0].float())


def test_a_very_narrow_picture_is_cut_before_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def recorded(self: Image.Image, size: tuple[int, int], *how: object) -> Image.Image:
        sizes.append(size)
        return resize(self, size, *how)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Image.Image, "resize", recorded)
    rows = np.zeros((16_000, 1, 3), np.uint8)
    rows[7_900:8_100] = 200
    assert len(clip_input(rows, 224).unique()) == 3  # one value of each colour
    assert sizes == [(224, 16 * 224)]
