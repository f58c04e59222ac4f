"""What a person is shown of a control picture beforehand: the same as the engine gives to the net, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from shared.errors import Refused
from shared.media.control_preview import softened
from shared.media.control_question import ControlQuestion
from shared.media.decode import PictureReader
from shared.media.storage import Storage, upload_key
from shared.params.preprocessors import PREPROCESSORS
from shared.params.render import RenderParams
from shared.settings import Limits
from worker.engine.architectures.base import Architecture
from worker.engine.images import masks
from worker.engine.pipelines import img2img_host
from worker.engine.pipelines.controls import controls
from worker.engine.pipelines.inputs import ControlInput, Kit
from worker.engine.requests import Work
from worker.render import sources

CONTROL, SOURCE, MASK = ("c" * 64, "a" * 64, "b" * 64)
ROLES = {"control": CONTROL, "source": SOURCE, "mask": MASK}
READER = PictureReader(Limits(max_upload_megapixels=1, max_pixels=2**20))
WEIGHTS: Any = SimpleNamespace(
    latent=Architecture.latent, dtype=torch.float32, device=SimpleNamespace(kind="cpu"), tiling=None
)
NET: Any = SimpleNamespace(require_fit=lambda _: None, embedding=None)


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    READER.close()


def scene(mode: str = "RGB", size: tuple[int, int] = (150, 90)) -> bytes:
    """Discs of all colours on a ramp, as a stored PNG."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    layers = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=2).astype(np.uint8)
    random = np.random.default_rng(1)
    for _ in range(9):
        y, x, radius = random.integers(0, height), random.integers(0, width), random.integers(4, 25)
        layers[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = random.integers(0, 256, 3)
    picture = Image.fromarray(layers)
    if mode == "RGBA":
        picture.putalpha(Image.fromarray((columns * 255 // width).astype(np.uint8)))
    return png(picture.convert(mode))


def patch(size: tuple[int, int] = (150, 90)) -> bytes:
    mask = Image.new("L", size)
    mask.paste(255, (40, 20, 90, 61))
    mask.paste(255, (95, 62, 99, 90))
    return png(mask)


def png(picture: Image.Image) -> bytes:
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def params(unit: dict[str, object], over: dict[str, object] | None = None, size: tuple[int, int] = (128, 72)) -> Any:
    unit = {"model": "edges", "picture": CONTROL, **unit}
    width, height = size
    return RenderParams.model_validate({"width": width, "height": height, "controlnet": [unit], "img2img": over})


def previewed(wanted: RenderParams, stored: dict[str, bytes]) -> NDArray[np.uint8]:
    question = ControlQuestion(wanted.controlnet[0], (wanted.width, wanted.height), wanted.img2img, stored)
    answer = Image.open(BytesIO(READER.control(question, "controlnet.0.picture", "ann")))
    assert answer.size == (wanted.width, wanted.height)
    return np.asarray(answer)


def given_to_the_net(wanted: RenderParams, stored: dict[str, bytes], folder: Path) -> NDArray[np.float32]:
    """Return the picture that the engine hands to a net's first layers [h, w, 3], read from a storage as workers do."""
    storage = Storage(str(folder))
    for role, data in stored.items():
        storage.put(upload_key(ROLES[role]), data)
    found = sources.pictures(storage, wanted)
    ((unit, pictures),) = found.controls
    kit = Kit(WEIGHTS, source=found.source, mask=found.mask, controls=(ControlInput(unit, NET, *pictures),))
    canvas = img2img_host.prepared(wanted, wanted.img2img, kit) if wanted.img2img else None
    steps: Any = SimpleNamespace(
        params=wanted,
        before=None,
        weights=WEIGHTS,
        sigmas=[2.0, 1.0, 0.0],
        facts=SimpleNamespace(order=1),
        plan=SimpleNamespace(calls=2),
    )
    work = next(controls(steps, kit, canvas))
    assert isinstance(work, Work)
    shown: NDArray[np.float32] = work.function().permute(1, 2, 0).numpy()
    return shown


def as_given(shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what a preview says that the net is given."""
    values = shown[..., :3].astype(np.float32) / 255
    if shown.shape[2] == 4:
        values[shown[..., 3] == 0] = -1
    return values


OVER: dict[str, object] = {"picture": SOURCE}
MASKED: dict[str, object] = {"picture": SOURCE, "mask": {"picture": MASK}}
CLOSE: dict[str, object] = {"picture": SOURCE, "mask": {"picture": MASK, "area": "only masked", "padding": 8}}
CASES: dict[str, tuple[dict[str, object], dict[str, object] | None]] = {
    **{name: ({"preprocessor": name}, None) for name in PREPROCESSORS if name != "inpaint"},
    "canny, own numbers": ({"preprocessor": "canny", "threshold_a": 30, "threshold_b": 60}, None),
    "blur, wide": ({"preprocessor": "blur", "threshold_a": 64}, None),
    "tile, small": ({"preprocessor": "tile", "threshold_a": 8}, None),
    "stretched": ({"resize": "resize", "preprocessor": "canny"}, None),
    "filled": ({"resize": "fill"}, None),
    "the source is followed": ({"picture": None, "preprocessor": "canny"}, {**OVER, "resize_mode": "crop"}),
    "beside a source": ({"preprocessor": "grey"}, OVER),
    "inpaint": ({"preprocessor": "inpaint", "picture": None}, MASKED),
    "inpaint, a picture of its own": ({"preprocessor": "inpaint"}, MASKED),
    "inpaint, inverted and soft": (
        {"preprocessor": "inpaint", "picture": None},
        {"picture": SOURCE, "resize_mode": "fill", "mask": {"picture": MASK, "invert": True, "blur": 12.0}},
    ),
    "only the masked part": ({"preprocessor": "canny"}, CLOSE),
    "only the masked part of the source": ({"preprocessor": "inpaint", "picture": None}, CLOSE),
}


@pytest.mark.parametrize("name", CASES)
def test_a_preview_is_what_the_engine_gives_to_the_net(name: str, tmp_path: Path) -> None:
    unit, over = CASES[name]
    wanted = params(unit, over)
    roles = [*(["control"] if wanted.controlnet[0].picture else []), *(["source"] if over else [])]
    stored = {"control": scene(), "source": scene(size=(140, 110)), "mask": patch((140, 110))}
    stored = {role: stored[role] for role in [*roles, *(["mask"] if over and "mask" in over else [])]}
    assert np.array_equal(as_given(previewed(wanted, stored)), given_to_the_net(wanted, stored, tmp_path))


@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize("size", [(150, 90), (1, 900), (64, 64)])
def test_pictures_of_any_kind_and_size_are_shown_as_the_engine_reads_them(
    mode: str, size: tuple[int, int], tmp_path: Path
) -> None:
    wanted, stored = params({"preprocessor": "canny", "threshold_a": 20}), {"control": scene(mode, size)}
    assert np.array_equal(as_given(previewed(wanted, stored)), given_to_the_net(wanted, stored, tmp_path))


def test_a_part_that_an_inpainting_net_should_paint_is_transparent() -> None:
    shown = previewed(params(*CASES["inpaint"]), {"source": scene(), "mask": patch()})
    assert shown.shape == (72, 128, 4)
    assert shown[30, 55].tolist() == [0, 0, 0, 0]
    assert shown[5, 5, 3] == 255


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.5, 4.0, 64.0])
def test_a_mask_is_softened_as_in_the_engine(sigma: float) -> None:
    """The engine computes with PyTorch: a value between two whole numbers may go to the other one."""
    mask = np.asarray(Image.open(BytesIO(patch((400, 330)))))
    ours, engines = softened(mask, sigma).astype(int), masks.blurred(mask, sigma).astype(int)
    assert np.abs(ours - engines).max() <= 1
    assert np.array_equal(ours > 128, engines > 128)
    assert np.array_equal(ours > 0, engines > 0)


@pytest.mark.nightly
def test_the_largest_picture_is_prepared_within_the_limits() -> None:
    reader = PictureReader(Limits(max_upload_megapixels=4))
    random = np.random.default_rng(1).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
    wanted = params({"preprocessor": "canny"}, size=(2048, 2048))
    question = ControlQuestion(wanted.controlnet[0], (2048, 2048), None, {"control": png(Image.fromarray(random))})
    try:
        assert Image.open(BytesIO(reader.control(question, "controlnet.0.picture", "ann"))).size == (2048, 2048)
    finally:
        reader.close()


@pytest.mark.parametrize("stored", [{"control": scene()[:200]}, {}], ids=["damaged", "missing"])
def test_a_picture_that_cannot_be_read_is_refused_with_its_field(stored: dict[str, bytes]) -> None:
    with pytest.raises(Refused, match=r"damaged|missing") as caught:
        previewed(params({}), stored)
    (problem,) = caught.value.fields
    assert problem.field == "controlnet.0.picture"
    assert problem.message.startswith("cannot be prepared: the control picture is ")
    assert problem.accepted == "an undamaged picture, or a smaller one"
    assert previewed(params({}), {"control": scene()}).shape == (72, 128, 3)  # the process answers on
