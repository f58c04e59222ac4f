"""What the engine gets of the pictures that a render starts from."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.errors import RenderError, StorageError
from shared.media.storage import Storage, upload_key
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from worker.render import sources
from worker.render.sources import Sources, pictures

SOURCE, MASK = "a" * 64, "b" * 64


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def png(picture: Image.Image) -> bytes:
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def painted(*, masked: bool) -> RenderParams:
    mask = Mask(picture=MASK) if masked else None
    return RenderParams(img2img=Img2Img(picture=SOURCE, mask=mask))


def test_text_to_image_needs_none(storage):
    assert pictures(storage, RenderParams()) == Sources(None, None)


def test_source_is_flattened_on_white_and_mask_goes_by_alpha(storage):
    source = Image.new("RGBA", (3, 2), (255, 0, 0, 255))
    source.putpixel((2, 1), (255, 0, 0, 0))
    mask = Image.new("RGBA", (3, 2), (0, 0, 0, 0))
    mask.putpixel((1, 0), (0, 0, 0, 255))
    storage.put(upload_key(SOURCE), png(source))
    storage.put(upload_key(MASK), png(mask))
    inputs = pictures(storage, painted(masked=True))
    assert inputs.source.tolist() == [[[255, 0, 0]] * 3, [[255, 0, 0], [255, 0, 0], [255, 255, 255]]]
    assert inputs.mask.tolist() == [[0, 255, 0], [0, 0, 0]]
    assert inputs.source.dtype == inputs.mask.dtype == np.uint8


def test_control_pictures_stand_beside_their_options_in_order(storage):
    storage.put(upload_key(SOURCE), png(Image.new("RGB", (3, 2), (1, 2, 3))))
    units = [{"model": "a", "picture": SOURCE}, {"model": "b"}, {"model": "c", "picture": MASK, "weight": 0.0}]
    params = RenderParams(controlnet=units)
    inputs = pictures(storage, params)
    assert (inputs.source, inputs.mask) == (None, None)
    assert [unit.model for unit, _ in inputs.controls] == ["a", "b", "c"]
    (_, first), (_, second), (_, third) = inputs.controls
    assert first.tolist() == [[[1, 2, 3]] * 3] * 2
    assert second is third is None  # the source is followed, and what has no effect is not read


def test_pictures_to_follow_stand_beside_the_options_of_their_adapter(storage):
    storage.put(upload_key(SOURCE), png(Image.new("RGBA", (3, 2), (1, 2, 3, 255))))
    storage.put(upload_key(MASK), png(Image.new("L", (1, 1), 9)))
    units = [{"model": "a", "pictures": [MASK, SOURCE]}, {"model": "b", "pictures": ["c" * 64], "weight": 0.0}]
    inputs = pictures(storage, RenderParams(ip_adapters=units))
    assert [unit.model for unit, _ in inputs.ip_adapters] == ["a", "b"]
    (_, (grey, source)), (_, none) = inputs.ip_adapters
    assert grey.tolist() == [[[9, 9, 9]]]
    assert source.tolist() == [[[1, 2, 3]] * 3] * 2
    assert none == ()  # what has no effect is not read


@pytest.mark.parametrize(("size", "kept"), [((50, 100), (50, 100)), ((140, 50), (34, 17)), ((60, 90), (20, 30))])
def test_large_pictures_to_follow_wait_in_memory_as_their_middle_made_smaller(storage, monkeypatch, size, kept):
    monkeypatch.setattr(sources, "_LARGE", 5000)
    monkeypatch.setattr(sources, "_ENOUGH", 16)
    picture = Image.new("RGB", size, "red")
    picture.paste("blue", (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    storage.put(upload_key(SOURCE), png(picture))
    ((_, (seen,)),) = pictures(storage, RenderParams(ip_adapters=[{"model": "a", "pictures": [SOURCE]}])).ip_adapters
    assert seen.shape[1::-1] == kept
    assert seen[seen.shape[0] // 2, seen.shape[1] // 2].tolist() == [0, 0, 255]


def test_control_picture_that_is_gone_is_named(storage):
    with pytest.raises(RenderError, match=r"control picture aaaaaaaaaa is no longer stored: upload it"):
        pictures(storage, RenderParams(controlnet=[{"model": "a", "picture": SOURCE}]))


def test_picture_that_is_gone_says_what_to_do(storage):
    with pytest.raises(RenderError, match=r"source picture aaaaaaaaaa is no longer stored: upload it") as caught:
        pictures(storage, painted(masked=False))
    assert not caught.value.retryable


def test_damaged_mask_is_named(storage):
    whole = png(Image.new("L", (64, 64)))
    storage.put(upload_key(SOURCE), whole)
    storage.put(upload_key(MASK), whole[:60])
    with pytest.raises(RenderError, match=r"the mask bbbbbbbbbb is damaged"):
        pictures(storage, painted(masked=True))


def test_storage_that_is_away_may_be_tried_again(storage, monkeypatch):
    def away(_: str) -> bytes:
        raise StorageError("no route")

    monkeypatch.setattr(storage, "get", away)
    with pytest.raises(StorageError) as caught:
        pictures(storage, painted(masked=False))
    assert caught.value.retryable
