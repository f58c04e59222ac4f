"""What a job sets although its checkpoints have no use for it: the job is rendered, and its owner reads why."""

from __future__ import annotations

import pytest

from shared.admission import no_effect
from shared.params.render import RenderParams
from tests.conftest import CheckpointFactory
from tests.support.browsing import look, send

SIZES = {"original_size": {"width": 2048, "height": 2048}, "crop": {"left": 64}}
SKIP = {"clip_skip": 2}
ON_XL = "no effect on Stable Diffusion XL"
UNLESS = "unless Clip skip on CLIP-L (sdxl_clip_l_skip) is set"


@pytest.mark.parametrize(
    ("given", "architecture", "notes"),
    [
        (SKIP, "sd1", []),
        (SKIP, "sd2", ["Clip skip has no effect on Stable Diffusion 2."]),
        (SKIP, "sdxl", [f"Clip skip has {ON_XL} {UNLESS}."]),
        (SKIP | {"sdxl_clip_l_skip": True}, "sdxl", []),
        ({"clip_skip": 1}, "sdxl", []),
        (SIZES, "sdxl", []),
        (SIZES, "sd1", ["Original size and crop have no effect on Stable Diffusion 1."]),
        (SIZES | SKIP, "sd2", ["Clip skip, original size and crop have no effect on Stable Diffusion 2."]),
        ({"crop": {"left": 0, "top": 0}}, "sd1", []),
        ({"sdxl_clip_l_skip": True}, "sd2", ["Clip skip on CLIP-L has no effect on Stable Diffusion 2."]),
        (SIZES | SKIP, "sd9", []),
        (SIZES | SKIP, None, []),
    ],
)
def test_owner_is_told_what_has_no_effect_on_the_checkpoint(
    client, checkpoint_factory: CheckpointFactory, given, architecture, notes
):
    checkpoint_factory("demo", architecture=architecture)
    answer = client.post("/api/v1/jobs", json={"prompt": "a"} | given)
    assert answer.status_code == 202, answer.get_json()
    job = answer.get_json()
    assert job["notes"] == notes
    assert {name: job["params"][name] for name in given if name != "crop"} == {
        name: value for name, value in given.items() if name != "crop"
    }


@pytest.mark.parametrize(
    ("given", "architectures", "notes"),
    [
        (SKIP, ["sd1", "sd2"], []),  # the first pass or the second reads another layer
        (SIZES | {"target_size": {"width": 64, "height": 64}}, ["sdxl", "sdxl-refiner"], []),
        (
            SKIP | {"target_size": {"width": 64, "height": 64}},
            ["sdxl-refiner"],
            ["Clip skip and target size have no effect on Stable Diffusion XL refiner."],
        ),
        (
            SKIP,
            ["sdxl-refiner", "sdxl"],
            [f"Clip skip has {ON_XL} and Stable Diffusion XL refiner {UNLESS}."],
        ),
        (SKIP, ["sd2", "sd9"], []),
    ],
)
def test_one_checkpoint_with_a_use_for_it_is_enough(given, architectures, notes):
    assert [*no_effect.notes(RenderParams.model_validate(given), architectures)] == notes


def test_page_of_a_job_tells_it_after_the_form_was_sent(client, checkpoint_factory: CheckpointFactory):
    checkpoint_factory("demo", architecture="sdxl")
    answer = send(client, "/jobs", prompt="a", clip_skip="2")
    assert f"Clip skip has {ON_XL} {UNLESS}." in look(client, answer.location).text


def test_form_knows_the_architectures_of_checkpoints_and_of_fields(client, checkpoint_factory: CheckpointFactory):
    checkpoint_factory("demo", architecture="sdxl")
    checkpoint_factory("strange", architecture=None)
    form = look(client, "/")
    chosen = [one.attributes for one in form.all("option") if one.attributes.get("data-native")][:2]
    assert [one["data-architecture"] for one in chosen] == ["sdxl", ""]
    assert chosen[0]["data-family"] == "Stable Diffusion XL"
    facts = {
        one.attributes["name"]: one.attributes.get("data-architectures")
        for one in form.all("input")
        if "name" in one.attributes
    }
    assert facts["clip_skip"] == "sd1: sdxl:sdxl_clip_l_skip"
    assert facts["original_size.width"] == facts["crop.top"] == "sdxl: sdxl-refiner:"
    assert facts["target_size.height"] == facts["sdxl_clip_l_skip"] == "sdxl:"
    assert facts["steps"] is None
