"""Admission: what is asked for becomes a complete job, or is refused with every bad field at once."""

from __future__ import annotations

import math

import pytest

from shared.admission.parse import parse
from shared.db.sessions import transact
from shared.models.model_set import ModelSet
from shared.params.fields import MAX_SEED
from shared.params.render import RenderParams
from shared.settings import Limits
from tests.support.admissions import admitted


@pytest.fixture
def admit(sessions, checkpoint_factory):
    checkpoint_factory("demo", sha256="d" * 64, native_size=128)
    return lambda given: transact(sessions, lambda session: admitted(session, given))


def test_what_is_left_out_is_filled_in(admit):
    admission = admit({"prompt": "a lake"})
    params, models = admission.params, admission.models
    assert models == ModelSet(checkpoint="d" * 64)
    assert params.seed >= 0
    assert params == RenderParams(
        prompt="a lake", checkpoint="demo [dddddddddd]", vae="none", width=128, height=128, seed=params.seed
    )


def test_a_random_seed_is_another_each_time_and_a_given_one_stays(admit):
    drawn = {admit({}).params.seed for _ in range(5)}
    assert len(drawn) == 5
    assert all(0 <= seed < 2**32 for seed in drawn)
    assert admit({"seed": 0}).params.seed == 0


@pytest.mark.parametrize("vae", ["automatic", "white", "WHITE [ffffffffff]"])
def test_every_file_that_is_named_is_in_the_model_set_by_its_role(admit, checkpoint_factory, vae):
    checkpoint_factory("refiner", sha256="1" * 64)
    checkpoint_factory("second", sha256="2" * 64)
    checkpoint_factory("white", path="VAE/white.safetensors", kind="vae", sha256="f" * 64)
    checkpoint_factory("demo.vae", path="demo.vae.safetensors", kind="vae", sha256="b" * 64)
    given = {"checkpoint": "demo", "vae": vae, "refiner": {"checkpoint": "refiner"}, "hires": {"checkpoint": "second"}}
    vae_sha256 = ("b" if vae == "automatic" else "f") * 64
    assert admit(given).models == ModelSet(
        checkpoint="d" * 64, vae=vae_sha256, refiner="1" * 64, hires="2" * 64, hires_vae=vae_sha256
    )
    assert admit({"checkpoint": "demo", "vae": "None"}).models == ModelSet(checkpoint="d" * 64)


def test_names_come_in_their_own_spelling(admit):
    params = admit({"sampler": "dpm++ 2m", "schedule": "Karras", "checkpoint": "DEMO"}).params
    assert (params.sampler, params.schedule, params.checkpoint) == ("DPM++ 2M", "karras", "demo [dddddddddd]")


def test_a_name_means_the_same_in_every_spelling(admit):
    assert admit({"seed": 5, "sampler": "EULER"}).params == admit({"seed": 5, "sampler": "Euler"}).params


def test_resolved_parameters_are_admitted_as_they_are(admit):
    params = admit({"prompt": "again"}).params
    assert admit(params.model_dump(mode="json")).params == params


def test_every_bad_field_is_named_at_once(refusals):
    found = refusals(
        {
            "prompt": 5,
            "negative_prompt": None,
            "checkpoint": "dmo",
            "width": 100,
            "height": 100_000,
            "steps": "many",
            "cfg_scale": -1,
            "sampler": "Euler b",
            "schedule": "carras",
            "seed": 1.5,
            "count": 0,
            "exact": "yes",
            "promt": "x",
        }
    )
    assert found == {
        "prompt": ("must be text, not 5", "text of at most 10,000 characters and 1,200 tokens"),
        "negative_prompt": ("must be text, not null", "text of at most 10,000 characters and 1,200 tokens"),
        "checkpoint": ("There is no checkpoint 'dmo'", "demo [dddddddddd]"),
        "width": ("100 is not a multiple of 8", "64 to 4096 in steps of 8, or 0 (the checkpoint's own size)"),
        "height": ("100000 is too large", "64 to 4096 in steps of 8, or 0 (the checkpoint's own size)"),
        "steps": ("must be a whole number, not the text 'many'", "a whole number from 1 to 150"),
        "cfg_scale": ("-1 is too small", "a number from 0 to 30"),
        "sampler": ("There is no sampler 'Euler b'", "Euler a or Euler"),
        "schedule": ("There is no schedule 'carras'", "karras"),
        "seed": ("must be a whole number, not 1.5", f"a whole number from 0 to {MAX_SEED}, or -1 for a random one"),
        "count": ("0 is too small", "a whole number from 1 to 1000"),
        "exact": ("must be true or false, not the text 'yes'", "true or false"),
        "promt": ("is not a parameter", "prompt"),
    }


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"cfg_scale": math.nan}, "cfg_scale"),
        ({"cfg_scale": math.inf}, "cfg_scale"),
        ({"cfg_scale": 10**400}, "cfg_scale"),
        ({"cfg_scale": 30.1}, "cfg_scale"),
        ({"steps": True}, "steps"),
        ({"steps": 151}, "steps"),
        ({"steps": 10**30}, "steps"),
        ({"width": 56}, "width"),
        ({"width": 512.0}, "width"),
        ({"height": -8}, "height"),
        ({"count": 1001}, "count"),
        ({"seed": -2}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "a\x00b"}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "x" * 10_001}, "prompt"),
        ({"checkpoint": "../../etc/passwd"}, "checkpoint"),
        ({"checkpoint": "x" * 100_000}, "checkpoint"),
        ({"sampler": ""}, "sampler"),
        ({"sampler": "y" * 100_000}, "sampler"),
        ({"z" * 100_000: 1}, "z" * 60),
    ],
)
def test_a_bad_value_is_refused_by_its_field_in_few_words(refusals, given, field):
    found = refusals(given)
    assert list(found) == [field]
    assert len("".join(found[field])) < 400


def test_a_prompt_that_is_too_long_is_told_its_length(refusals):
    assert refusals({"prompt": "x" * 100_000})["prompt"] == (
        "is 100,000 characters long",
        "text of at most 10,000 characters and 1,200 tokens",
    )


@pytest.mark.parametrize(("prompt", "tokens"), [("cat " * 1201, "1,201"), ("日" * 2000, "2,000")])
def test_a_prompt_of_too_many_tokens_is_told_how_many(admit, refusals, prompt, tokens):
    assert admit({"prompt": "cat " * 1200})
    assert refusals({"negative_prompt": prompt}) == {
        "negative_prompt": (f"is {tokens} tokens long", "text of at most 10,000 characters and 1,200 tokens")
    }


def test_a_schedule_that_the_sampler_has_no_use_for_is_refused_with_those_it_takes(refusals):
    assert refusals({"sampler": "DDIM", "schedule": "karras"}) == {
        "schedule": ("DDIM cannot use the schedule karras", "automatic")
    }


def test_seeds_may_not_run_past_the_largest(admit, refusals):
    assert admit({"seed": MAX_SEED}).params.seed == MAX_SEED
    assert admit({"seed": MAX_SEED - 9, "count": 10}).params.count == 10
    assert refusals({"seed": MAX_SEED - 9, "count": 11})["seed"][1] == f"at most {MAX_SEED - 10}"


@pytest.mark.parametrize("body", [None, [], "text", 5, True, math.nan])
def test_what_is_no_object_is_refused(refusals, body):
    assert list(refusals(body)) == ["body"]


def test_a_flood_of_unknown_fields_is_told_in_a_few(refusals):
    assert len(refusals({f"field-{number}": 1 for number in range(10_000)})) == 50


def test_parsing_alone_finds_what_is_wrong_on_any_farm():
    given = {"sampler": "none", "steps": "x", "checkpoint": "unknown", "width": 8192, "priority": 101}
    request = parse(given, "ann", Limits())
    assert [problem.field for problem in request.problems] == ["steps", "priority", "sampler"]
    assert parse({"width": 8192}, "ann", Limits()).params == RenderParams(width=8192)


def test_a_sampler_of_another_program_is_refused_by_its_name_without_a_wrong_suggestion(refusals):
    message, offered = refusals({"sampler": "heunpp2"})["sampler"]
    assert message == "There is no sampler 'heunpp2' here: it is ComfyUI's"
    assert offered.startswith("DPM++ 2M, ")


def test_names_of_other_programs_are_understood(admit):
    second = {"sampler": "euler_ancestral", "schedule": "ddim_uniform"}
    params = admit({"sampler": "dpmpp_2m_karras", "hires": second}).params
    assert (params.sampler, params.schedule) == ("DPM++ 2M", "karras")
    assert (params.hires.sampler, params.hires.schedule) == ("Euler a", "ddim")


def test_a_second_pass_needs_a_vae_and_a_refiner_none(admit, refusals, checkpoint_factory):
    checkpoint_factory("empty", has_vae=False)
    checkpoint_factory("fine", kind="vae")
    assert admit({"refiner": {"checkpoint": "empty"}}).params.vae == "none"
    for vae in ("automatic", "none"):
        found = refusals({"hires": {"scale": 1.5, "checkpoint": "empty"}, "vae": vae})
        assert list(found) == ["hires.checkpoint"]
        assert found["hires.checkpoint"][0].startswith("empty has no VAE inside")
    assert admit({"hires": {"scale": 1.5, "checkpoint": "empty"}, "vae": "fine"}).params.vae.startswith("fine [")
    checkpoint_factory("demo.vae", kind="vae")
    assert admit({"hires": {"scale": 1.5, "checkpoint": "empty"}}).params.vae.startswith("demo.vae [")
