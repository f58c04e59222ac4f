"""What the engine gets of the pictures that a render starts from."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from shared.errors import RenderError, StorageError
from shared.media import arrays
from shared.media.storage import Storage, upload_key
from shared.params.controlnet import FitMode
from shared.params.geometry import hires_size
from shared.params.groups import Hires
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from worker.engine.images.clip_input import clip_input
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
    inputs = pictures(storage, RenderParams(width=64, height=128, controlnet=units))
    assert (inputs.source, inputs.mask) == (None, None)
    assert [unit.model for unit, _ in inputs.controls] == ["a", "b", "c"]
    (_, (first,)), (_, second), (_, third) = inputs.controls
    assert first.tolist() == [[[1, 2, 3]] * 64] * 128
    assert second == third == ()  # the source is followed, and what has no effect is not read


@pytest.mark.parametrize("resize", get_args(FitMode))
@pytest.mark.parametrize("hires", [None, Hires(scale=1.5), Hires(width=160, height=256)])
def test_a_control_picture_waits_in_memory_at_the_size_of_each_pass_as_the_pass_would_make_it(storage, resize, hires):
    drawn = np.random.default_rng(0).integers(0, 256, (301, 207, 3), np.uint8)
    storage.put(upload_key(SOURCE), png(Image.fromarray(drawn)))
    params = RenderParams(
        width=64, height=128, hires=hires, controlnet=[{"model": "a", "picture": SOURCE, "resize": resize}]
    )
    sizes = [(64, 128)]
    if hires:
        sizes.append(hires_size(64, 128, hires).final)
    ((_, held),) = pictures(storage, params).controls
    assert [one.shape[1::-1] for one in held] == sizes
    for one, size in zip(held, sizes, strict=True):
        expected = arrays.resized(drawn, *size, resize)
        assert np.array_equal(one, expected)
        assert np.array_equal(arrays.resized(one, *size, resize), expected)


def test_a_control_picture_stays_as_it_is_where_only_a_masked_part_is_rendered(storage):
    for name in (SOURCE, MASK):
        storage.put(upload_key(name), png(Image.new("RGB", (3, 2))))
    start = Img2Img(picture=SOURCE, mask=Mask(picture=MASK, area="only masked"))
    params = RenderParams(width=64, height=64, img2img=start, controlnet=[{"model": "a", "picture": SOURCE}])
    ((_, (held,)),) = pictures(storage, params).controls
    assert held.shape == (2, 3, 3)


def test_pictures_to_follow_stand_beside_the_options_of_their_adapter(storage):
    storage.put(upload_key(SOURCE), png(Image.new("RGBA", (3, 2), (1, 2, 3, 255))))
    storage.put(upload_key(MASK), png(Image.new("L", (1, 1), 9)))
    units = [{"model": "a", "pictures": [MASK, SOURCE]}, {"model": "b", "pictures": ["c" * 64], "weight": 0.0}]
    inputs = pictures(storage, RenderParams(ip_adapters=units))
    assert [unit.model for unit, _ in inputs.ip_adapters] == ["a", "b"]
    (_, read), (_, read_none) = inputs.ip_adapters
    grey, source = read(2)
    assert grey.tolist() == [[[9, 9, 9]] * 2] * 2
    assert source.tolist() == [[[1, 2, 3]] * 2] * 2
    assert read_none(2) == ()  # what has no effect is not read


@pytest.mark.parametrize("size", [(300, 400), (1500, 1450), (41, 30), (224, 224)])
def test_of_a_picture_to_follow_only_what_its_encoder_reads_waits_in_memory(storage, size):
    drawn = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    storage.put(upload_key(SOURCE), png(Image.fromarray(drawn)))
    ((_, read),) = pictures(storage, RenderParams(ip_adapters=[{"model": "a", "pictures": [SOURCE]}])).ip_adapters
    (held,) = read(224)
    assert (held.shape, held.base) == ((224, 224, 3), None)
    assert torch.equal(clip_input(held, 224), clip_input(drawn, 224))


def test_picture_to_follow_that_is_gone_is_named_before_models_are_loaded(storage):
    with pytest.raises(RenderError, match=r"picture to follow aaaaaaaaaa is no longer stored: upload it"):
        pictures(storage, RenderParams(ip_adapters=[{"model": "a", "pictures": [SOURCE]}]))


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
