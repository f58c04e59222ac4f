"""A picture that is extended: its own pixels stay, and the rest is what inpainting of the same canvas gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shared.errors import RenderError
from shared.media import framing
from shared.params.img2img import Img2Img, Outpaint
from shared.params.render import RenderParams
from tests.unit.engine.test_pipelines import SECONDS, apart, picture
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Run
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import render

SHA = "0" * 64
RIGHT = {"right": 32, "feather": 16}


def extending(params: RenderParams, width: int, height: int, **how: Any) -> RenderParams:
    start = Img2Img(picture=SHA, denoising=0.8, outpaint=Outpaint(**how))
    return params.model_copy(update={"img2img": start, "steps": 3, "width": width, "height": height})


def begun(engine: Engine, weights: Weights, params: RenderParams) -> Run:
    return engine.render(render(params, Kit(weights, source=picture())))


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
@pytest.mark.parametrize("content", ["fill", "edge", "mirror", "latent noise"])
def test_what_is_new_is_painted_and_the_rest_is_kept_pixel_for_pixel(
    engine: Engine, tiny: Weights, params: RenderParams, sampler: str, content: str
) -> None:
    wanted = extending(params, 96, 64, **RIGHT, content=content).model_copy(update={"sampler": sampler})
    result = begun(engine, tiny, wanted).result(SECONDS)
    assert result.shape == (64, 96, 3)
    assert np.array_equal(result[:, :48], picture()[:, :48])
    assert apart(result[:, 64:], framing.extended(picture(), 96, 64, Outpaint(**RIGHT))[0][:, 64:]) > 10


def test_result_is_that_of_inpainting_the_same_canvas_alone_and_in_company(
    engine: Engine, tiny: Weights, params: RenderParams
) -> None:
    how = Outpaint(left=24, top=8, bottom=16, feather=20)
    wanted = extending(params, 88, 88, **how.model_dump())
    canvas, mask = framing.extended(picture(), 88, 88, how)
    options = Img2Img(picture=SHA, denoising=0.8, mask=how.as_mask(SHA))
    inpainting = wanted.model_copy(update={"img2img": options})
    alone = begun(engine, tiny, wanted).result(SECONDS)
    others = [begun(engine, tiny, params.model_copy(update={"seed": seed, "img2img": None})) for seed in (1, 2)]
    among = begun(engine, tiny, wanted)
    inpainted = engine.render(render(inpainting, Kit(tiny, source=canvas, mask=mask)))
    assert np.array_equal(among.result(SECONDS), alone)
    assert np.array_equal(inpainted.result(SECONDS), alone)
    for other in others:
        other.result(SECONDS)


@pytest.mark.parametrize(
    ("size", "how", "corner"),
    [
        ((72, 64), {"left": 8}, (8, 0)),
        ((72, 64), {"right": 8}, (0, 0)),
        ((80, 80), {"left": 8, "right": 8, "top": 16}, (8, 16)),
    ],
    ids=str,
)
def test_canvas_holds_the_picture_where_its_sides_say(
    size: tuple[int, int], how: dict[str, int], corner: tuple[int, int]
) -> None:
    canvas, mask = framing.extended(picture(), *size, Outpaint(**how, feather=0))
    place = np.s_[corner[1] : corner[1] + 64, corner[0] : corner[0] + 64]
    assert canvas.shape == (*size[::-1], 3)
    assert np.array_equal(canvas[place], picture())
    assert not mask[place].any()
    assert mask.sum(dtype=int) == 255 * (size[0] * size[1] - 64 * 64)


def test_sides_that_are_no_whole_cells_are_completed_where_the_picture_grows() -> None:
    odd = picture(61, 59)
    canvas, mask = framing.extended(odd, 72, 64, Outpaint(left=8, feather=8))
    assert np.array_equal(canvas[:61, 13:], odd)
    assert not mask[:57, 17:].any()
    assert (mask == 0).sum() == 57 * 55


@pytest.mark.parametrize(("size", "feather"), [((96, 72), 0), ((64, 64), 0), ((96, 64), 130)])
def test_canvas_that_cannot_be_is_refused(size: tuple[int, int], feather: int) -> None:
    with pytest.raises(RenderError, match="picture to extend"):
        framing.extended(picture(), *size, Outpaint(right=32, feather=feather))
