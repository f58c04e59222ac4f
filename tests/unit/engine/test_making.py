"""How a picture was made: what is kept of its run, and that keeping it changes no pixel."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.media.arrays import Pixels
from shared.media.making import Making
from shared.params.groups import Hires
from shared.params.render import RenderParams
from shared.prompts.tokenizer import Tokenizer
from tests.unit.engine.test_pipelines import SECONDS
from worker.engine.architectures.weights import Weights
from worker.engine.loop.engine import Engine
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.making import MOST_STAGES, Witness, made
from worker.engine.pipelines.render import render
from worker.render.making import files


def both(engine: Engine, weights: Weights, params: RenderParams) -> tuple[Pixels, Making]:
    """A picture, and how it was made."""
    witness, kit = Witness(), Kit(weights)
    picture = engine.render(render(params, kit), on_step=witness.take).result(SECONDS)
    return picture, engine.render(made(params, kit, witness)).result(SECONDS)


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM CFG++", "Heun"])
def test_picture_is_the_same_with_and_without_it_alone_and_in_company(
    engine: Engine, tiny: Weights, params: RenderParams, sampler: str
) -> None:
    wanted = params.model_copy(update={"sampler": sampler, "steps": 4, "cfg_scale": 5.0})
    plain = engine.render(render(wanted, Kit(tiny))).result(SECONDS)
    others = [engine.render(render(wanted.model_copy(update={"seed": seed}), Kit(tiny))) for seed in (5, 6)]
    among, making = both(engine, tiny, wanted)
    alone, again = both(engine, tiny, wanted)
    for other in others:
        other.result(SECONDS)
    assert np.array_equal(alone, plain)
    assert np.array_equal(among, plain)
    assert making.pull is not None
    assert again.pull is not None
    assert np.array_equal(making.start, again.start)
    assert np.array_equal(making.pull.prompted, again.pull.prompted)


def test_it_holds_the_start_some_steps_the_guided_call_and_the_tokens(
    engine: Engine, tiny: Weights, params: RenderParams
) -> None:
    wanted = params.model_copy(
        update={"prompt": "(red:1.5) sailboat AND moon :0.4", "negative_prompt": "sun", "steps": 20, "cfg_scale": 6.0}
    )
    _, making = both(engine, tiny, wanted)
    assert making.start.shape == (8, 8, 3)
    assert 2 < len(making.stages) <= MOST_STAGES
    assert making.stages[0].step == 1
    sigmas = [stage.sigma for stage in making.stages]
    assert sigmas == sorted(sigmas, reverse=True)
    assert all(stage.latent.shape == (8, 8, 3) and stage.expected.shape == (64, 64, 3) for stage in making.stages)
    assert making.pull is not None
    assert 1 < making.pull.step <= 8
    assert not np.array_equal(making.pull.prompted, making.pull.unprompted)
    first, second = ([(token.text, token.weight) for token in part.chunks[0]] for part in making.prompt)
    assert first[0] == ("red", 1.5)
    assert "".join(text for text, _ in first[1:]) == "sailboat"
    assert second == [("moon", 1.0)]
    assert [part.weight for part in making.prompt] == [1.0, 0.4]
    [negative] = making.negative_prompt
    assert [(token.id, token.text) for token in negative.chunks[0]] == [(Tokenizer().encode("sun")[0], "sun")]


@pytest.mark.parametrize(
    "changes", [{"cfg_scale": 1.0}, {"steps": 1}, {"hires": Hires(scale=2.0, steps=2, denoising=0.5)}], ids=str
)
def test_files_say_what_there_is(engine: Engine, tiny: Weights, params: RenderParams, changes: dict[str, Any]) -> None:
    _, making = both(engine, tiny, params.model_copy(update={"steps": 3, "cfg_scale": 4.0, **changes}))
    made_files = dict(files(making))
    said = json.loads(made_files["intermediates"])
    assert (said["guidance"] is None) == ("cfg_scale" in changes)
    assert ("guidance" in made_files) == (said["guidance"] is not None)
    assert ("latents" in made_files) == bool(said["steps"]) == ("steps" not in changes)
    assert any(step["second_pass"] for step in said["steps"]) == ("hires" in changes)
    for kind, data in made_files.items():
        assert len(data) < 300_000, kind
        if kind != "intermediates":
            with Image.open(BytesIO(data)) as image:
                assert max(image.size) <= 2000


def test_tokens_are_named_whatever_their_bytes() -> None:
    tokenizer = Tokenizer()
    words = [tokenizer.text(token) for token in tokenizer.encode("a café, 猫")]
    assert words[:3] == ["a", "café", ","]
    assert all("</w>" not in word for word in words)
