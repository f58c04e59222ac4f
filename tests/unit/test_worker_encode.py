from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from worker import encode


def noise(height, width):
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "thumbnail"), [((512, 1024), (256, 128)), ((64, 128), (128, 64))])
def test_a_thumbnail_is_small_and_never_enlarged(size, thumbnail):
    with Image.open(BytesIO(encode.thumbnail(noise(*size)))) as image:
        assert (image.format, image.size) == ("WEBP", thumbnail)


def test_a_preview_keeps_its_size():
    with Image.open(BytesIO(encode.preview(noise(16, 24)))) as image:
        assert (image.format, image.size) == ("WEBP", (24, 16))
