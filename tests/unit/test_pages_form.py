"""Inputs in the form, and the page that answers them."""

from __future__ import annotations

import pytest
from werkzeug.datastructures import MultiDict

from api.pages import fieldsets
from api.pages.fields import EVERY, FIELDS, plain
from api.pages.form_data import read, typed
from api.pages.parameter_table import parameter_table, sides
from shared.params.faces import Faces
from shared.params.facts import EVERYDAY
from shared.params.groups import Guidance, Hires, Noise, Refiner, Sampling
from shared.params.img2img import Img2Img, Mask, Outpaint
from shared.params.render import RenderParams
from shared.params.size_conditioning import Crop, OriginalSize, TargetSize

EVERYTHING = RenderParams(
    prompt="a lake\nat dawn",
    negative_prompt="people",
    styles=("oil", "night"),
    emphasis="No norm",
    checkpoint="demo",
    vae="fine",
    clip_skip=2,
    width=128,
    height=64,
    steps=9,
    cfg_scale=6.125,
    sampler="Heun",
    schedule="karras",
    seed=7,
    count=3,
    exact=True,
    tiling="x",
    film=True,
    format="webp",
    file_quality=80,
    sampling=Sampling(
        eta=0.0,
        s_churn=3.5,
        s_tmin=0.25,
        s_tmax=9.0,
        s_noise=1.003,
        sigma_min=0.03,
        sigma_max=14.6,
        rho=5.0,
        discard_next_to_last_sigma=False,
        zero_terminal_snr=True,
    ),
    guidance=Guidance(rescale=0.7, skip_below_sigma=1.5, skip_all_steps=True, skip_early=0.1),
    noise=Noise(
        source="NV", variation_seed=8, variation_strength=1e-7, resize_width=64, resize_height=128, eta_seed_delta=31337
    ),
    refiner=Refiner(checkpoint="other", switch_at=0.5),
    hires=Hires(
        scale=1.5,
        width=256,
        height=320,
        steps=4,
        denoising=0.4,
        upscaler="Lanczos",
        sampler="Euler",
        schedule="simple",
        prompt="closer",
        negative_prompt="far",
        checkpoint="third",
    ),
    faces=Faces(restorer="GFPGANv1.4", strength=0.75, fidelity=0.25),
    img2img=Img2Img(
        picture="a" * 64,
        denoising=0.35,
        resize_mode="crop",
        exact_steps=True,
        extra_noise=0.05,
        noise_multiplier=0.9,
        color_correction=True,
        mask=Mask(
            picture="b" * 64,
            blur=2.0,
            invert=True,
            content="latent noise",
            area="only masked",
            padding=16,
            weight=0.5,
            soft=True,
        ),
        outpaint=Outpaint(left=8, right=16, top=24, bottom=32, feather=8, content="edge"),
    ),
    original_size=OriginalSize(width=1500, height=1001),
    crop=Crop(left=12, top=34),
    target_size=TargetSize(width=1024, height=768),
    sdxl_clip_l_skip=True,
    intermediates=True,
)
"""Every field at another value than its default."""


def test_every_field_is_typed_and_read_back():
    assert RenderParams.model_validate(read(typed(EVERYTHING.model_dump()))) == EVERYTHING


def test_example_leaves_no_field_at_its_default():
    given, untouched = typed(EVERYTHING.model_dump()), typed(RenderParams().model_dump())
    assert [name for name in FIELDS if given.getlist(name) == untouched.getlist(name)] == []


def test_untouched_form_asks_for_the_defaults():
    assert RenderParams.model_validate(read(typed(RenderParams().model_dump()))) == RenderParams()


def test_every_field_stands_in_the_form_once():
    groups = (EVERYDAY, *fieldsets.FOLDED, *fieldsets.SCHEDULING)
    assert sorted(name for group in groups for name in fieldsets.members(group)) == sorted(EVERY)


def test_labels_tell_fields_apart():
    labels = [fieldsets.label(name) for name in (*EVERY, *fieldsets.SWITCHES)]
    assert len(set(labels)) == len(labels)


def test_read_leaves_out_what_was_left_empty():
    assert read(MultiDict({"prompt": "  ", "width": "", "steps": "20", "styles": ""})) == {"steps": 20}


def test_read_takes_a_decimal_comma_and_keeps_what_is_no_number():
    given = {"cfg_scale": "7,5", "steps": "2e1", "seed": "-1", "count": "1_0", "noise.variation_strength": ".5"}
    assert read(MultiDict(given)) == {
        "cfg_scale": 7.5,
        "steps": "2e1",
        "seed": -1,
        "count": "1_0",
        "noise": {"variation_strength": 0.5},
    }


def test_read_gives_lines_the_form_they_have_everywhere_else():
    assert read(MultiDict({"prompt": "sea\r\nmoon"})) == {"prompt": "sea\nmoon"}


def test_a_jobs_page_has_the_order_and_the_words_of_the_form():
    params = RenderParams.model_validate({"img2img": {"picture": "a", "mask": {"picture": "b", "content": "fill"}}})
    rows = [row for group in parameter_table(params) for row in group.rows]
    assert [label for label, _ in rows if label in {"Sampler", "Schedule", "Steps"}] == ["Sampler", "Schedule", "Steps"]
    assert ("Masked content", "Blurred colours around it") in rows


@pytest.mark.parametrize("field", ["hires.scale", "img2img.denoising", "img2img.mask.blur", "refiner.switch_at"])
def test_read_leaves_out_a_part_that_was_not_asked_for(field):
    assert read(MultiDict({field: "0.5"})) == {}


@pytest.mark.parametrize(
    ("typed_in", "asked_for"),
    [
        (
            {"original_size.width": "1024"},
            {"original_size": {"width": 1024}},
        ),  # the API says that the height is missing
        ({"crop.left": "64", "crop.top": ""}, {"crop": {"left": 64}}),
        ({"target_size.width": "", "target_size.height": " "}, {}),
    ],
)
def test_sizes_that_sdxl_knows_are_asked_for_by_what_is_typed(typed_in, asked_for):
    assert read(MultiDict(typed_in)) == asked_for


def test_second_pass_is_asked_for_by_its_box_alone():
    assert read(MultiDict({"hires": "on"})) == {"hires": {}}


def test_mask_without_a_picture_is_left_for_the_door_to_refuse():
    assert read(MultiDict({"img2img.mask.picture": "b"})) == {"img2img": {"mask": {"picture": "b"}}}


@pytest.mark.parametrize(("value", "digits"), [(7.0, "7"), (0.35, "0.35"), (1e-7, "0.0000001"), (1e21, "1" + "0" * 21)])
def test_plain_number_has_no_exponent_and_no_tail(value, digits):
    assert plain(value) == digits
    assert float(digits) == value


def test_facts_of_plain_parameters_are_the_everyday_ones_alone():
    (everyday,) = parameter_table(RenderParams(width=64, height=64, seed=7))
    assert [label for label, _ in everyday.rows] == [
        "Checkpoint", "Size", "Sampler", "Schedule", "Steps", "CFG scale", "Seed", "Images"
    ]  # fmt: skip


def test_facts_tell_what_was_set_under_the_title_of_its_group():
    params = RenderParams(hires=Hires(), sampling=Sampling(eta=0.0), format="webp", film=True)
    told = {group.title: dict(group.rows) for group in parameter_table(params)}
    assert told["Hires"] == {"Scale": "2", "Upscaler": "Latent", "Hires denoising": "0.7"}
    assert told["Sampling options"] == {"Eta": "0"}
    assert told["Output"] == {"Format": "WebP", "Film": "yes"}


def test_facts_leave_nothing_out_but_pictures_and_texts_of_the_head():
    shown = {label for group in parameter_table(EVERYTHING) for label, _ in group.rows}
    apart = {"prompt", "negative_prompt", "styles", "width", "height", "img2img.picture", "img2img.mask.picture"}
    assert shown == {fieldsets.label(name) for name in FIELDS.keys() - apart - {"hires.scale"}} | {"Size"}


def test_sides_are_those_of_the_second_pass():
    assert sides(RenderParams(width=128, height=64)) == (128, 64)
    assert sides(RenderParams(width=128, height=64, hires=Hires(scale=2.0))) == (256, 128)
