"""Admission of what comes in groups: second pass, noise, guidance, source and mask, styles."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image

from shared.admission.accepted import accepted
from shared.db.sessions import transact
from shared.media import uploads
from shared.media.decode import Picture, PictureReader
from shared.media.storage import Storage
from shared.params.fields import MAX_SEED
from shared.params.table import parameters
from shared.prompts.styles import Style
from shared.prompts.tokenizer import MAX_TOKENS
from shared.settings import Limits
from tests.conftest import catalogue_of_its_own
from tests.support.admissions import admitted

STYLES = {
    "ink": Style("ink", "ink drawing", "colour"),
    "night": Style("night", "{prompt}, at night", ""),
    "echo": Style("echo", "{prompt} {prompt} {prompt}", ""),
}
UPLOAD = Picture(b"a PNG", 8, 8)


@pytest.fixture(scope="module")
def sessions(home, tmp_path_factory):
    """A farm with checkpoints and VAEs where `ann` has one upload; no test changes it."""
    with catalogue_of_its_own(home) as (factory, make):
        make("demo", sha256="d" * 64, native_size=128)
        make("other", sha256="e" * 64, native_size=512)
        make("beside", sha256="c" * 64)
        make("beside.vae", sha256="b" * 64, kind="vae")
        make("fine", sha256="a" * 64, kind="vae")
        make("4x-sharp", sha256="1" * 64, kind="upscaler")
        make("2x-soft", sha256="2" * 64, kind="upscaler")
        uploads.keep(factory, Storage(str(tmp_path_factory.mktemp("pictures"))), "ann", {"file": UPLOAD}, Limits())
        yield factory


@pytest.fixture(scope="module")
def picture_reader():
    made = PictureReader(Limits())
    yield made
    made.close()


@pytest.fixture
def admit(sessions, picture_reader):
    def ask(given, owner="ann"):
        return transact(sessions, lambda session: admitted(session, given, owner, STYLES, picture_reader)).params

    return ask


def data_url(size=(8, 8), kind="PNG"):
    out = BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def test_every_bad_field_of_every_group_is_named_at_once(refusals):
    found = refusals(
        {
            "clip_skip": 13,
            "tiling": True,
            "emphasis": "original",
            "styles": ["ink", 5, "inc"],
            "sampling": {"eta": 2, "s_churn": -1, "etha": 1},
            "guidance": {"rescale": "much"},
            "noise": {"source": "GPU", "variation_strength": 1.5, "resize_width": 100},
            "refiner": {"switch_at": 2},
            "hires": {"scale": 0.5, "upscaler": "Lanczoz", "steps": 151, "sampler": "Eular", "checkpoint": "othr"},
            "img2img": {"denoising": 2, "mask": {"blur": 65, "content": "filled", "colour": 1}},
        }
    )
    assert found == {
        "clip_skip": ("13 is too large", "a whole number from 1 to 12"),
        "tiling": ("true is none of the choices", "none, both, x or y"),
        "emphasis": ("the text 'original' is none of the choices", "Original, No norm, Ignore or None"),
        "styles.1": ("must be text, not 5", "up to 32 names of styles"),
        "sampling.eta": ("2 is too large", "a number from 0 to 1, or null"),
        "sampling.s_churn": ("-1 is too small", "a number from 0 to 1000"),
        "sampling.etha": ("is not a parameter", "sampling.eta, sampling.rho or sampling.s_tmax"),
        "guidance.rescale": ("must be a number, not the text 'much'", "a number from 0 to 1"),
        "noise.source": ("the text 'GPU' is none of the choices", "CPU or NV"),
        "noise.variation_strength": ("1.5 is too large", "a number from 0 to 1"),
        "noise.resize_width": ("100 is not a multiple of 8", "64 to 4096 in steps of 8, or 0 (off)"),
        "refiner.checkpoint": ("is missing", "the name or hash of a checkpoint"),
        "refiner.switch_at": ("2 is too large", "a number from 0 to 1"),
        "hires.scale": ("0.5 is too small", "a number from 1 to 8"),
        "hires.upscaler": ("There is no upscaler 'Lanczoz'", "Lanczos"),
        "hires.steps": ("151 is too large", "a whole number from 0 to 150"),
        "hires.sampler": ("There is no sampler 'Eular'", "Euler or Euler a"),
        "hires.checkpoint": ("There is no checkpoint 'othr'", "other [eeeeeeeeee]"),
        "img2img.picture": ("is missing", accepted("img2img.picture", Limits())),
        "img2img.denoising": ("2 is too large", "a number from 0 to 1"),
        "img2img.mask.picture": ("is missing", accepted("img2img.mask.picture", Limits())),
        "img2img.mask.blur": ("65 is too large", "a number from 0 to 64"),
        "img2img.mask.content": (
            "the text 'filled' is none of the choices", "fill, original, latent noise or latent nothing",
        ),
        "img2img.mask.colour": ("is not a parameter", found["img2img.mask.colour"][1]),
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, one in parameters().items() if one.is_group and not one.is_list])
@pytest.mark.parametrize("value", [5, "text", [], True])
def test_group_that_is_no_object_is_refused_by_its_name(refusals, name, value):
    *outer, last = name.split(".")
    given = {last: value} if not outer else {outer[0]: {last: value}}
    message, offered = refusals(given)[name]
    assert message.startswith("must be an object")
    assert offered.startswith("an object of ")


def test_group_is_left_out_by_null_where_it_may_be(admit):
    assert admit({"hires": None, "refiner": None, "img2img": None}).hires is None


def test_old_combined_name_sets_the_schedule_of_both_passes(admit):
    params = admit({"sampler": "dpm++ 2m karras", "hires": {"sampler": "k_euler_a", "schedule": "SGM Uniform"}})
    assert (params.sampler, params.schedule) == ("DPM++ 2M", "karras")
    assert (params.hires.sampler, params.hires.schedule) == ("Euler a", "sgm_uniform")
    assert admit({"sampler": "DPM++ 2M Karras", "schedule": "beta"}).schedule == "beta"
    assert admit({"hires": {"sampler": "DPM++ 2M Karras"}}).hires.schedule == "karras"


def test_second_pass_that_takes_over_a_schedule_needs_a_sampler_with_a_use_for_it(admit, refusals):
    assert admit({"schedule": "karras", "hires": {}}).hires.schedule == ""
    found = refusals({"schedule": "karras", "hires": {"sampler": "DDIM"}})
    assert found == {"hires.schedule": ("DDIM cannot use the schedule karras", "automatic")}


def test_options_that_a_sampler_has_no_use_for_are_taken(admit):
    assert admit({"sampler": "DDIM", "sampling": {"s_churn": 5.0, "rho": 3.0}}).sampling.s_churn == 5


@pytest.mark.parametrize("empty", ["", " "])
def test_refiner_of_no_name_is_missing_though_no_name_is_the_first_checkpoint_elsewhere(refusals, empty):
    found = refusals({"refiner": {"checkpoint": empty}})
    assert found == {"refiner.checkpoint": ("is missing", "the name or hash of a checkpoint")}


def test_checkpoints_of_refiner_and_second_pass_are_resolved(admit):
    params = admit({"refiner": {"checkpoint": "OTHER"}, "hires": {"checkpoint": "eeeeeeeeee"}})
    assert params.refiner.checkpoint == params.hires.checkpoint == "other [eeeeeeeeee]"
    assert admit({"hires": {}}).hires.checkpoint == ""


@pytest.mark.parametrize("name", ["4x-sharp", "4X-SHARP", "1111111111", "4x-sharp [1111111111]"])
def test_an_upscaler_may_be_a_model_file(sessions, admit, name):
    given = {"hires": {"upscaler": name}}
    assert admit(given).hires.upscaler == "4x-sharp [1111111111]"
    admission = transact(sessions, lambda session: admitted(session, given, "ann", STYLES))
    assert admission.models.upscaler == "1" * 64
    assert admission.models.companions == ""  # it rides along


@pytest.mark.parametrize(
    ("name", "message", "offered"),
    [
        ("4x-shrap", "There is no upscaler '4x-shrap'", "4x-sharp [1111111111]"),
        ("demo", "demo is a whole checkpoint, not an upscaler", "Lanczos"),
        ("  ", "is empty", "Lanczos"),
        ("zzz", "There is no upscaler 'zzz'", "2x-soft [2222222222]"),
    ],
)
def test_an_unknown_upscaler_is_refused_with_the_nearest_ones(refusals, name, message, offered):
    told, accepted_words = refusals({"hires": {"upscaler": name}})["hires.upscaler"]
    assert told == message
    assert offered in accepted_words


def test_upscaler_comes_in_its_own_spelling(admit):
    assert admit({"hires": {"upscaler": "latent (BICUBIC)"}}).hires.upscaler == "Latent (bicubic)"


@pytest.mark.parametrize(
    ("hires", "size"),
    [
        ({"scale": 2.0}, None),
        ({"width": 2048, "height": 2048}, None),
        ({"width": 2048}, "2048x4096"),
        ({"scale": 8.0}, "4096x8192"),
        ({"width": 2048, "height": 64}, "2048x4096"),
        ({"width": 64, "height": 64}, None),
    ],
)
def test_second_pass_stays_within_the_limits_also_before_it_is_cut(admit, refusals, hires, size):
    given = {"width": 512, "height": 1024, "hires": hires}
    if hires == {"width": 2048, "height": 2048}:
        given["height"] = 512
    if size is None:
        assert admit(given)
        return
    (found,) = refusals(given).items()
    assert found[0].startswith("hires.")
    accepted = "both sides within 64 to 4096 pixels, together at most 4,194,304 pixels, such as 2048x2048"
    assert found[1] == (f"the second pass would be {size}", accepted)


# The sizes that SDXL was trained with, in one of their two directions.
BUCKETS = [(1024, 1024), (1152, 896), (832, 1216), (1344, 768), (640, 1536), (512, 2048)]


@pytest.mark.parametrize("size", BUCKETS)
def test_a_second_pass_may_double_every_size_that_sdxl_was_trained_with(admit, size):
    assert admit({"width": size[0], "height": size[1], "hires": {"scale": 2.0}}).width == size[0]


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"width": 2048, "height": 2056}, "height", "2048x2056 has 4,210,688 pixels"),
        ({"width": 4096, "height": 4096}, "width", "4096x4096 has 16,777,216 pixels"),
        (
            {"noise": {"resize_width": 4096, "resize_height": 1032}},
            "noise.resize_width",
            "4096x1032 has 4,227,072 pixels",
        ),
    ],
)
def test_area_is_limited_beside_the_sides(admit, refusals, given, field, message):
    assert refusals(given) == {field: (message, "at most 4,194,304 pixels, such as 2048x2048")}
    assert admit({"width": 4096, "height": 1024}).height == 1024


def test_second_pass_is_for_text_to_image_only(refusals):
    assert list(refusals({"hires": {}, "img2img": {"picture": UPLOAD.sha256}})) == ["hires"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"steps": 20, "hires": {"denoising": 0.01}}, "hires.denoising"),
        ({"steps": 150, "hires": {"denoising": 0.1}}, "hires.denoising"),
        (
            {"steps": 20, "img2img": {"picture": UPLOAD.sha256, "denoising": 1e-9, "exact_steps": True}},
            "img2img.denoising",
        ),
    ],
)
def test_strength_that_would_need_an_endless_schedule_is_refused(refusals, given, field):
    assert list(refusals(given)) == [field]


@pytest.mark.parametrize("denoising", [0.0, 0.02, 1.0])
def test_other_strengths_are_taken(admit, denoising):
    assert admit({"hires": {"denoising": denoising}}).hires.denoising == denoising
    started = {"picture": UPLOAD.sha256, "denoising": denoising, "exact_steps": True}
    assert admit({"img2img": started}).img2img.denoising == denoising


def test_variation_seed_is_drawn_where_it_matters(admit):
    assert admit({"noise": {"variation_strength": 0.0}}).noise.variation_seed == -1
    assert admit({"noise": {"variation_strength": 0.1}}).noise.variation_seed >= 0
    assert admit({"noise": {"variation_strength": 0.1, "variation_seed": 4}}).noise.variation_seed == 4


def test_the_seed_that_counts_up_may_not_run_past_the_largest(admit, refusals):
    leaning = {"variation_strength": 0.1, "variation_seed": MAX_SEED - 1}
    assert admit({"seed": MAX_SEED, "count": 2, "noise": leaning})
    assert refusals({"seed": 1, "count": 3, "noise": leaning})["noise.variation_seed"][1] == f"at most {MAX_SEED - 2}"


def test_both_sides_of_another_size_are_needed(refusals):
    assert list(refusals({"noise": {"resize_width": 512}})) == ["noise.resize_height"]


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        ({"sigma_min": 5.0, "sigma_max": 5.0}, "sampling.sigma_max"),
        ({"sigma_max": 0.01}, "sampling.sigma_max"),
        ({"sigma_min": 20.0}, "sampling.sigma_min"),
        ({"sigma_min": 20.0, "sigma_max": 30.0}, None),
    ],
)
def test_schedule_goes_down(admit, refusals, sampling, field):
    if field is None:
        assert admit({"sampling": sampling})
    else:
        assert list(refusals({"sampling": sampling})) == [field]


def test_styles_are_written_into_the_prompts(admit):
    params = admit({"prompt": "a lake", "negative_prompt": "fog", "styles": ["ink", "night"]})
    assert params.prompt == "a lake, ink drawing, at night"
    assert params.negative_prompt == "fog, colour"
    assert params.styles == ()


def test_styles_are_written_into_prompts_of_the_second_pass_that_it_has_itself(admit):
    hires = admit({"prompt": "a lake", "styles": ["ink"], "hires": {"prompt": "a sea"}}).hires
    assert (hires.prompt, hires.negative_prompt) == ("a sea, ink drawing", "")


def test_unknown_style_is_refused_with_the_nearest(refusals):
    assert refusals({"styles": ["night", "inc"]})["styles.1"] == ("There is no style 'inc'", "ink")


def test_style_that_repeats_the_prompt_again_and_again_ends_at_the_limit(refusals):
    found = refusals({"prompt": "word " * 100, "styles": ["echo"] * 32})
    assert "characters long" in found["prompt"][0]


def test_parts_joined_by_and_are_bounded(admit, refusals):
    assert admit({"prompt": " AND ".join("x" * 16)})
    assert refusals({"prompt": " AND ".join("x" * 17)})["prompt"] == ("has 17 parts joined by AND", "at most 16 parts")
    assert admit({"negative_prompt": " AND ".join("x" * 17)})


def test_longest_variant_of_an_edited_prompt_counts(refusals):
    assert "tokens long" in refusals({"prompt": f"[a:{'cat ' * (MAX_TOKENS + 1)}:0.5]"})["prompt"][0]


def test_five_thousand_tokens_are_refused_with_the_limit(refusals):
    message, offered = refusals({"prompt": "a " * 5000})["prompt"]
    assert message == "is 5,000 tokens long"
    assert f"{MAX_TOKENS:,} tokens" in offered


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": "", "negative_prompt": ""},
        {"steps": 1},
        {"cfg_scale": 0},
        {"cfg_scale": 1},
        {"width": 64, "height": 2048},
        {"prompt": "🏰🌊 a castle", "negative_prompt": "🚗"},
        {"prompt": "قلعة على البحر", "negative_prompt": "\u202eשלום"},
        {"prompt": "((((unbalanced [and: (1.3"},
        {"prompt": "[" * 5000},
        {"img2img": {"picture": UPLOAD.sha256, "denoising": 0.0}},
    ],
    ids=str,
)
def test_what_looks_odd_is_taken(admit, given):
    assert admit(given)


def test_data_url_becomes_the_hash_of_what_is_stored(admit):
    params = admit({"img2img": {"picture": data_url(), "mask": {"picture": data_url(kind="BMP")}}})
    assert params.img2img.picture == params.img2img.mask.picture
    assert len(params.img2img.picture) == 64


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("f" * 64, "You have no upload ffffffffff…; it may have been deleted"),
        ("https://example.org/cat.png", "is an address: the farm fetches nothing from elsewhere"),
        ("file:///etc/passwd", "is an address: the farm fetches nothing from elsewhere"),
        ("../../etc/passwd", "is neither an upload nor a data URL: '../../etc/passwd'"),
        ("", "is neither an upload nor a data URL: ''"),
        ("data:image/png;base64,AAAA", "is not a picture of a format that the farm reads"),
    ],
)
def test_picture_that_cannot_be_had_is_refused_by_its_field(refusals, picture, message):
    assert refusals({"img2img": {"picture": picture}})["img2img.picture"][0] == message
    masked = {"picture": UPLOAD.sha256, "mask": {"picture": picture}}
    assert {field: told[0] for field, told in refusals({"img2img": masked}).items()} == {
        "img2img.mask.picture": message
    }


def test_upload_of_somebody_else_is_not_there(admit, refusals):
    given = {"img2img": {"picture": UPLOAD.sha256}}
    assert admit(given)
    assert list(refusals(given, owner="bob")) == ["img2img.picture"]


def test_resolved_parameters_with_every_group_are_admitted_as_they_are(admit):
    params = admit(
        {
            "prompt": "a lake", "refiner": {"checkpoint": "other"}, "noise": {"variation_strength": 0.2},
            "img2img": {"picture": data_url(), "mask": {"picture": UPLOAD.sha256}},
        }
    )  # fmt: skip
    asked = params.model_copy(update={"img2img": params.img2img.model_copy(update={"picture": UPLOAD.sha256})})
    assert admit(asked.model_dump(mode="json")) == asked


def test_vae_is_named_as_it_is_used(admit):
    assert admit({"checkpoint": "demo"}).vae == admit({"checkpoint": "demo", "vae": "None"}).vae == "none"
    assert admit({"vae": "FINE", "checkpoint": "other"}).vae == "fine [aaaaaaaaaa]"
    assert admit({"checkpoint": "beside"}).vae == "beside.vae [bbbbbbbbbb]"
    assert admit({"checkpoint": "beside", "vae": "none"}).vae == "none"


def test_vae_that_is_not_there_is_refused_with_those_that_are(refusals):
    message, offered = refusals({"vae": "fime"})["vae"]
    assert message == "There is no VAE 'fime'"
    assert "fine [aaaaaaaaaa]" in offered
    assert list(refusals({"vae": "fime", "checkpoint": "nowhere"})) == ["checkpoint", "vae"]
