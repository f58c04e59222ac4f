"""Admission of sweeps: every image is checked as a job of its own, and nothing is recorded unless all can be."""

from __future__ import annotations

from time import process_time

import pytest

from shared.admission.admit import admit as admitted
from shared.admission.admit import prepare
from shared.admission.parse import parse
from shared.db.sessions import transact
from shared.models.catalogue import Catalogue
from shared.params.fields import MAX_SEED
from shared.params.job_spec import JobSpec
from shared.prompts.styles import Style
from shared.settings import Limits

STYLES = {"Ink": Style("Ink", "ink drawing of {prompt}", "photo")}


@pytest.fixture
def admit(sessions, checkpoint_factory):
    checkpoint_factory("demo", sha256="d" * 64, native_size=128)
    checkpoint_factory("large", sha256="e" * 64, native_size=256)
    checkpoint_factory("ink", path="Lora/ink.safetensors", kind="lora", sha256="1" * 64)

    def ask(given, **limits):
        request = prepare(parse(given, "ann", Limits(first_checkpoint="demo", **limits)), STYLES)
        return transact(sessions, lambda session: admitted(session, request, Catalogue.read(session)))

    return ask


def sweep(*axes, **others):
    return {"axes": [dict(zip(("field", "values", "of"), axis, strict=False)) for axis in axes], **others}


def spec(admission):
    changes = {index: cell.changes for index, cell in enumerate(admission.cells)}
    return JobSpec(admission.params, admission.axes, changes)


def test_each_image_is_complete_and_its_job_says_what_is_the_same(admit):
    found = admit({"prompt": "a lake", "sweep": sweep(("cfg_scale", "7, 9"), ("checkpoint", "demo, large"))})
    assert [(axis.field, [one.title for one in axis.values]) for axis in found.axes] == [
        ("checkpoint", ["demo", "large"]),  # the dearest varies slowest
        ("cfg_scale", ["7", "9"]),
    ]
    assert found.params.count == 4
    assert [cell.models.checkpoint[0] for cell in found.cells] == ["d", "d", "e", "e"]
    images = [spec(found).image(index) for index in range(4)]
    assert images == [cell.params for cell in found.cells]
    assert [(one.checkpoint, one.width, one.cfg_scale) for one in images] == [
        ("demo [dddddddddd]", 128, 7),
        ("demo [dddddddddd]", 128, 9),
        ("large [eeeeeeeeee]", 256, 7),
        ("large [eeeeeeeeee]", 256, 9),
    ]
    assert {one.seed for one in images} == {found.params.seed}
    assert set(found.cells[3].changes) == {"checkpoint", "cfg_scale", "width", "height"}


def test_each_image_has_a_seed_of_its_own_where_that_is_wanted(admit):
    given = {"seed": 5, "sweep": sweep(("steps", "1-3"), seeds="each")}
    assert [cell.params.seed for cell in admit(given).cells] == [5, 6, 7]
    leaning = given | {"noise": {"variation_strength": 0.5, "variation_seed": 8}}
    assert [(one.params.seed, one.params.noise.variation_seed) for one in admit(leaning).cells] == [
        (5, 8),
        (5, 9),
        (5, 10),
    ]
    strengths = {"seed": 5, "noise": {"variation_seed": 8}, "sweep": sweep(("noise.variation_strength", "0, 0.5"))}
    assert [(one.seed, one.noise.variation_seed) for one in (c.params for c in admit(strengths).cells)] == [
        (5, 8),
        (5, 8),
    ]


def test_prompts_styles_and_adapters_of_each_image_are_resolved(admit):
    found = admit({"prompt": "lake", "sweep": sweep(("styles", "none, Ink"), ("lora", "0, 1", "ink"))})
    assert [(cell.params.prompt, len(cell.models.adapters)) for cell in found.cells] == [
        ("lake", 0),
        ("ink drawing of lake", 0),
        ("lake <lora:ink:1>", 1),
        ("ink drawing of lake <lora:ink:1>", 1),
    ]
    assert [spec(found).image(index).prompt for index in range(4)] == [cell.params.prompt for cell in found.cells]


def test_the_job_keeps_all_prompts_as_they_were_asked_for_beside_the_styles_of_its_images(admit):
    given = {"prompt": "lake", "negative_prompt": "fog", "hires": {"prompt": "a lake"}}
    found = admit(given | {"sweep": sweep(("styles", "Ink, none"))})
    texts = {"prompt": "lake", "negative_prompt": "fog", "hires.prompt": "a lake", "hires.negative_prompt": ""}
    assert found.params.of_kind("prompt") == texts
    assert [(one.prompt, one.negative_prompt, one.hires.prompt) for one in map(spec(found).image, (0, 1))] == [
        ("ink drawing of lake", "fog, photo", "ink drawing of a lake"),
        ("lake", "fog", "a lake"),
    ]


def test_the_job_keeps_the_prompt_as_it_was_asked_for_unless_that_means_nothing(admit):
    assert admit({"prompt": "{a|b} c", "sweep": sweep(("dynamic_prompts",))}).params.prompt == "{a|b} c"
    found = admit({"prompt": "c <lora:ink:{0.5|1}>", "sweep": sweep(("dynamic_prompts",))})
    assert found.params.prompt == "c <lora:ink:0.5>"


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"sweep": sweep(("steps", "20, 151"))}, "sweep.axes.0.values.1", "151 is too large"),
        ({"sweep": sweep(("sampler", "Euler, Euler b"))}, "sweep.axes.0.values.1", "There is no sampler 'Euler b'"),
        ({"sweep": sweep(("checkpoint", "demo, dmo"))}, "sweep.axes.0.values.1", "There is no checkpoint 'dmo'"),
        ({"sweep": sweep(("lora_name", "ink, inq"))}, "sweep.axes.0.values.1", "There is no LoRA 'inq'"),
        ({"steps": 151, "sweep": sweep(("cfg_scale", "1-5"))}, "steps", "151 is too large"),
        ({"sweep": sweep(("steps", "1,2"), seeds="each"), "seed": MAX_SEED}, "seed", "the last of 2 images"),
        ({"sweep": sweep(("steps", "1,2"), draft={"every": 2}), "hold": True}, "sweep.draft", "cannot be combined"),
        ({"sweep": sweep(("size", "64x64, 4096x4096"))}, "sweep.axes.0.values.1", "4096x4096 has 16,777,216 pixels"),
    ],
)
def test_the_value_that_cannot_be_rendered_is_named(refusals, given, field, message):
    found = refusals(given)
    assert [*found] == [field]
    assert found[field][0].startswith(message)
    assert found[field][1]


def test_what_only_some_values_together_make_impossible_is_named_with_them(refusals):
    given = {"hires": {"scale": 2}, "sweep": sweep(("hires.scale", "1, 8"), ("size", "64x64, 2048x2048"))}
    found = refusals(given)
    assert found == {
        "sweep.axes.0.values.1": (
            "the second pass would be 16384x16384 (at 2048 × 2048 / 8)",
            "both sides within 64 to 4096 pixels, together at most 4,194,304 pixels, such as 2048x2048",
        )
    }


def test_no_more_than_a_handful_of_images_is_complained_about(refusals):
    assert len(refusals({"sweep": sweep(("steps", "151-300"))})) == 5


@pytest.mark.parametrize("sign", ["desert", "[desert]", "[forest:desert:0.5]"])
def test_a_sweep_of_a_thousand_prompts_is_admitted_within_a_second(admit, sign):
    places, seas = (
        ", ".join(f"{what} number {at}" for at in range(many)) for what, many in (("place", 99), ("sea", 9))
    )
    given = {
        "prompt": f"a sun, sea, {f'a painting of the {sign} with (pyramids), ' * 14}",
        "sweep": sweep(("prompt_replace", f"sun, {places}"), ("prompt_replace", f"sea, {seas}")),
    }
    admit({"sweep": sweep(("steps", "1,2"))})  # what is only done once
    began = process_time()
    assert len({cell.params.prompt for cell in admit(given).cells}) == 1000
    assert process_time() - began < 1
