"""RenderParams: frozen, strict, complete, and readable for ever."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.params.fields import MAX_SEED
from shared.params.img2img import Outpaint
from shared.params.render import RenderParams
from tests.unit.test_pages_form import EVERYTHING

STORED = Path(__file__).parents[1] / "data" / "job-params-v1.json"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=200)
complete = st.builds(
    RenderParams,
    prompt=texts,
    negative_prompt=texts,
    checkpoint=texts,
    width=st.integers(0, 256).map(lambda cells: cells * 8),
    height=st.integers(0, 256).map(lambda cells: cells * 8),
    steps=st.integers(1, 150),
    cfg_scale=st.floats(0, 30),
    seed=st.integers(-1, MAX_SEED),
    count=st.integers(1, 1000),
    exact=st.booleans(),
)


@example(EVERYTHING)
@given(complete)
def test_json_round_trip_keeps_every_field(params):
    assert RenderParams.from_stored(json.loads(params.model_dump_json())) == params


def test_a_stored_job_reads_as_before():
    params = RenderParams.from_stored(json.loads(STORED.read_text()))
    assert (params.prompt, params.seed, params.count) == ("a photo of the sea at night, moon, red sailboat", 7, 4)
    assert (params.width, params.sampler, params.schedule, params.cfg_scale) == (128, "Euler a", "automatic", 7.0)


def test_a_field_younger_than_the_stored_job_takes_its_default():
    stored = json.loads(STORED.read_text())
    del stored["exact"]
    assert RenderParams.from_stored(stored).exact is False


def test_a_job_without_size_conditioning_stores_none_of_it_and_reads_it_as_the_size_of_the_pass():
    stored = RenderParams(prompt="sea").model_dump(mode="json", exclude_defaults=True)
    assert stored == {"prompt": "sea"}
    params = RenderParams.from_stored(stored)
    assert (params.original_size, params.target_size, params.sdxl_clip_l_skip) == (None, None, False)
    assert (params.crop.left, params.crop.top) == (0, 0)


@pytest.mark.parametrize("side", [1, 1023, 8192])
def test_size_conditioning_takes_any_size_of_its_range_whatever_the_size_of_the_picture(side):
    given = {"original_size": {"width": side, "height": 1}, "target_size": {"width": 8192, "height": side}}
    params = RenderParams.model_validate(given | {"crop": {"top": side}})
    assert (params.original_size.width, params.target_size.height, params.crop.left) == (side, side, 0)


def test_an_image_is_the_job_with_its_own_seed_and_alone():
    job = RenderParams(prompt="sea", seed=7, count=4)
    assert job.image(3) == RenderParams(prompt="sea", seed=10, count=1)


def test_nothing_can_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RenderParams().steps = 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", "20"),
        ("steps", 0),
        ("steps", 2.5),
        ("steps", True),
        ("width", 100),
        ("width", -8),
        ("cfg_scale", float("nan")),
        ("cfg_scale", float("inf")),
        ("cfg_scale", -1),
        ("seed", -2),
        ("seed", MAX_SEED + 1),
        ("count", 0),
        ("original_size", {"width": 0, "height": 1024}),
        ("original_size", {"width": 1024, "height": 8193}),
        ("original_size", {"width": 1024}),
        ("original_size", {"width": "1024", "height": 1024}),
        ("original_size", "1024x1024"),
        ("original_size", {}),
        ("crop", {"left": -1}),
        ("crop", {"top": 8193}),
        ("crop", {"left": 0.5}),
        ("crop", None),
        ("target_size", {"width": 1024, "height": -8}),
        ("target_size", {"height": 1024}),
        ("target_size", {"width": 1024, "height": 1024, "depth": 3}),
        ("sdxl_clip_l_skip", 1),
        ("sdxl_clip_l_skip", None),
        ("prompt", None),
        ("prompt", "a\x00b"),
        ("prompt", "\ud800"),
        ("colour", "red"),
    ],
)
def test_a_value_of_the_wrong_form_is_refused_by_name(field, value):
    with pytest.raises(ValidationError) as caught:
        RenderParams.model_validate({field: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


@pytest.mark.parametrize(("cfg_scale", "rows"), [(1.0, 1), (7.0, 2), (0.0, 1), (0.5, 2)])
def test_guidance_costs_a_second_row_unless_one_prompt_guides_alone(cfg_scale, rows):
    assert RenderParams(cfg_scale=cfg_scale).rows == rows


def test_fields_keep_their_order_because_digests_of_idempotency_keys_depend_on_it():
    assert list(RenderParams.model_fields) == [
        "prompt", "negative_prompt", "styles", "emphasis", "checkpoint", "vae", "clip_skip", "width", "height", "steps",
        "cfg_scale", "sampler", "schedule", "seed", "count", "exact", "tiling", "film", "format", "sampling",
        "guidance", "noise", "refiner", "hires", "img2img", "original_size", "crop", "target_size", "sdxl_clip_l_skip",
        "controlnet", "upscale", "ip_adapters", "faces", "intermediates",
        "file_quality",
    ]  # fmt: skip
    cut = EVERYTHING.img2img.model_copy(update={"outpaint": Outpaint()})
    faceless = EVERYTHING.model_copy(update={"faces": None, "intermediates": False, "file_quality": 95, "img2img": cut})
    younger = ("original_size", "crop", "target_size", "sdxl_clip_l_skip")
    older = faceless.model_copy(update={name: getattr(RenderParams(), name) for name in younger})
    assert [
        hashlib.sha256(one.model_dump_json(exclude_defaults=True).encode()).hexdigest() for one in (older, faceless)
    ] == [
        "9219abc0defa902cf2b1b142772499b5881e0778081ebfd4db87b172c78f1086",
        "244750b102f839d1ac4f30ed7431ec841ec980a022d79f9a7cf90ecb82236e29",
    ]
