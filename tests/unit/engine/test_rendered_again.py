"""Pictures of many kinds, stored, read back and rendered again: the same pixels."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from numpy.typing import NDArray
from PIL import Image

from shared.infotext import files
from shared.infotext.reader import read
from shared.infotext.writer import text
from shared.params.render import RenderParams
from shared.params.size_conditioning import Crop
from tests.support.checkpoints import NATIVE_SIZE
from tests.support.faces import Sharpens
from tests.unit.engine.conftest import Small
from worker.encode import picture
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render
from worker.engine.upscaling import face_restoring
from worker.engine.upscaling.face_detector import Face

Pixels = NDArray[np.uint8]

SOURCE = np.random.default_rng(7).integers(0, 256, (40, 72, 3), dtype=np.uint8)
MASK = np.zeros((40, 72), dtype=np.uint8)
MASK[10:30, 20:50] = 255
OVER = {"picture": "a" * 64, "denoising": 0.6, "resize_mode": "crop"}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"sampler": "Euler", "schedule": "karras"},
    "ancestral": {"sampler": "Euler a", "sampling": {"eta": 0.7}, "noise": {"eta_seed_delta": 31337}},
    "brownian": {"sampler": "DPM++ 2M SDE", "noise": {"source": "NV"}},
    "churned": {"sampler": "Heun", "sampling": {"s_churn": 3.0, "s_noise": 1.01, "sigma_max": 9.0}},
    "timesteps": {"sampler": "DDIM", "sampling": {"eta": 0.3}},
    "prompts": {"prompt": "(sea:1.3) [by day:at night:2] AND a moon :0.4", "negative_prompt": "a\nNegative prompt: b"},
    "variation": {"noise": {"variation_seed": 9, "variation_strength": 0.4, "resize_width": 32, "resize_height": 64}},
    "guidance": {"sampler": "DPM++ 2M", "guidance": {"rescale": 0.6, "skip_early": 0.3}, "emphasis": "No norm"},
    "tiled": {"tiling": "x", "vae": "none"},
    "hires": {"hires": {"scale": 1.5, "steps": 3, "upscaler": "Lanczos", "sampler": "DPM2 a", "prompt": "a: b, c"}},
    "hires by another schedule": {"sampler": "DPM++ 2M", "hires": {"scale": 1.5, "sampler": "Euler"}},
    "refined": {"refiner": {"checkpoint": "tiny [0123456789]", "switch_at": 0.5}},
    "painted over": {"img2img": OVER},
    "inpainted": {"img2img": OVER | {"mask": {"picture": "b" * 64, "blur": 2.0, "content": "latent noise"}}},
    "exact": {"exact": True, "sampler": "DPM2"},
    "jpeg": {"format": "jpeg"},
    "webp": {"format": "webp"},
}  # fmt: skip
BY_DAY = {"ancestral", "brownian", "churned", "prompts", "tiled", "hires", "inpainted", "exact", "jpeg"}

SIZED: dict[str, Any] = {
    "original_size": {"width": 1536, "height": 1024},
    "crop": {"left": 8, "top": 64},
    "target_size": {"width": 768, "height": 1024},
}
OF_SDXL: dict[str, dict[str, Any]] = {
    "sizes": SIZED,
    "refined": SIZED | {"refiner": {"checkpoint": "refiner [0123456789]", "switch_at": 0.5}},
    "refined in the second pass": {
        "refiner": {"checkpoint": "refiner [0123456789]", "switch_at": 0.3},
        "hires": {"scale": 1.5, "steps": 3, "upscaler": "Latent", "denoising": 1.0},
    },
    "clip skip": {"clip_skip": 3, "sdxl_clip_l_skip": True, "negative_prompt": ""},
    "painted over": {"img2img": OVER, "crop": {"left": 16}},
}


def by_day(kinds: Iterable[str], representatives: Collection[str]) -> list[ParameterSet]:
    """All kinds as parameters: those that represent no others are nightly."""
    return [pytest.param(kind, marks=() if kind in representatives else pytest.mark.nightly) for kind in kinds]


def decoded(data: bytes) -> Pixels:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def params(changes: dict[str, Any]) -> RenderParams:
    usual = {"prompt": "sea at night", "checkpoint": "tiny [0123456789]", "steps": 3, "cfg_scale": 3.0, "seed": 7}
    return RenderParams(**usual | {"width": NATIVE_SIZE, "height": NATIVE_SIZE} | changes)


def assert_rendered_again(engine: Engine, kit: Kit, wanted: RenderParams) -> Pixels:
    """Render a picture, store it, read it back and render it again; return it."""

    def file(of: RenderParams) -> bytes:
        pixels = engine.render(render(of, kit), exact=of.exact).result(120)
        return picture(pixels, text(of, version="1"), of.format)

    stored = file(wanted)
    with Image.open(BytesIO(stored)) as image:
        found = read(files.text(image))
    assert found.left_out == ()
    assert np.array_equal(decoded(file(RenderParams(**found.params))), decoded(stored))
    return decoded(stored)


@pytest.mark.parametrize("kind", by_day(KINDS, BY_DAY))
def test_a_stored_picture_is_rendered_again_to_the_pixel(kind: str, engine: Engine, tiny: Weights):
    wanted = params(KINDS[kind])
    kit = Kit(tiny, refiner=tiny if wanted.refiner else None)
    if wanted.img2img:
        kit = Kit(tiny, source=SOURCE, mask=MASK if wanted.img2img.mask else None)
    assert_rendered_again(engine, kit, wanted)


def test_a_stored_picture_with_restored_faces_is_rendered_again_to_the_pixel(
    engine: Engine, tiny: Weights, monkeypatch: pytest.MonkeyPatch
):
    """The picture shows no face, so the detector is given the place of one."""
    points = np.array([[25.0, 28], [39, 28], [32, 34], [27, 42], [37, 42]])
    monkeypatch.setattr(face_restoring.face_detector, "found", lambda _: [Face(points, 1.0)])
    monkeypatch.setattr(face_restoring.face_detector, "middle_one", lambda _: None)
    wanted = params({"faces": {"restorer": "sharp [0123456789]", "strength": 0.7}})
    restored = assert_rendered_again(engine, Kit(tiny, face_restorer=Sharpens()), wanted)
    plain = engine.render(render(wanted, Kit(tiny))).result(120)
    assert not np.array_equal(plain, restored)


@pytest.mark.parametrize("kind", by_day(OF_SDXL, {"sizes", "refined"}))
def test_a_stored_picture_of_sdxl_is_rendered_again_to_the_pixel(kind: str, engine: Engine, small: Small):
    wanted = params(OF_SDXL[kind])
    refiner = small("sdxl-refiner") if wanted.refiner else None
    kit = Kit(small("sdxl"), refiner=refiner, source=SOURCE if wanted.img2img else None)
    stored = assert_rendered_again(engine, kit, wanted)
    plain = wanted.model_copy(update=dict.fromkeys(("original_size", "target_size", "refiner")) | {"crop": Crop()})
    if plain != wanted:
        other = engine.render(render(plain, kit)).result(120)
        assert not np.array_equal(other, stored), "what is read back makes a difference"
