"""Parameters as rows hold them: what differs from the defaults, and what another version wrote."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given

from shared.jobs import stored
from shared.params.faces import Faces
from shared.params.groups import Hires, Refiner
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from shared.params.size_conditioning import OriginalSize, TargetSize
from shared.prompts.extra_networks import networks
from tests.unit.test_pages_form import EVERYTHING
from tests.unit.test_params import STORED, complete

NESTED = {
    "refiner": Refiner(checkpoint="x").model_dump(mode="json"),
    "hires": Hires().model_dump(mode="json"),
    "img2img": Img2Img(picture="x", mask=Mask(picture="x")).model_dump(mode="json"),
    "original_size": OriginalSize(width=1, height=1).model_dump(mode="json"),
    "target_size": TargetSize(width=1, height=1).model_dump(mode="json"),
    "faces": Faces(restorer="x").model_dump(mode="json"),
}
"""The groups that are left out as a rule, with the defaults of what stands in them."""


def test_every_default_is_what_it_always_was():
    """Rows hold what differs from the defaults: another default would give every stored job another meaning.

    A new field is added here with its default. None is changed: a new meaning gets a new field.
    """
    assert RenderParams().model_dump(mode="json") | NESTED == {
        "prompt": "",
        "negative_prompt": "",
        "styles": [],
        "emphasis": "Original",
        "checkpoint": "",
        "vae": "automatic",
        "clip_skip": 1,
        "width": 0,
        "height": 0,
        "steps": 20,
        "cfg_scale": 7.0,
        "sampler": "Euler a",
        "schedule": "automatic",
        "seed": -1,
        "count": 1,
        "exact": False,
        "tiling": "none",
        "film": False,
        "format": "png",
        "sampling": {
            "eta": None,
            "s_churn": 0.0,
            "s_tmin": 0.0,
            "s_tmax": 0.0,
            "s_noise": 1.0,
            "sigma_min": 0.0,
            "sigma_max": 0.0,
            "rho": 0.0,
            "discard_next_to_last_sigma": None,
            "zero_terminal_snr": False,
        },
        "guidance": {"rescale": 0.0, "skip_below_sigma": 0.0, "skip_all_steps": False, "skip_early": 0.0},
        "noise": {
            "source": "CPU",
            "variation_seed": -1,
            "variation_strength": 0.0,
            "resize_width": 0,
            "resize_height": 0,
            "eta_seed_delta": 0,
        },
        "refiner": {"checkpoint": "x", "switch_at": 0.8},
        "hires": {
            "scale": 2.0,
            "width": 0,
            "height": 0,
            "steps": 0,
            "denoising": 0.7,
            "upscaler": "Latent",
            "sampler": "",
            "schedule": "",
            "prompt": "",
            "negative_prompt": "",
            "checkpoint": "",
        },
        "img2img": {
            "picture": "x",
            "denoising": 0.75,
            "resize_mode": "resize",
            "exact_steps": False,
            "extra_noise": 0.0,
            "noise_multiplier": 1.0,
            "color_correction": False,
            "mask": {
                "picture": "x",
                "blur": 4.0,
                "invert": False,
                "content": "original",
                "area": "whole picture",
                "padding": 32,
                "weight": 1.0,
                "soft": False,
            },
            "outpaint": {"left": 0, "right": 0, "top": 0, "bottom": 0, "feather": 32, "content": "fill"},
        },
        "original_size": {"width": 1, "height": 1},
        "crop": {"left": 0, "top": 0},
        "target_size": {"width": 1, "height": 1},
        "sdxl_clip_l_skip": False,
        "controlnet": [],
        "upscale": None,
        "ip_adapters": [],
        "faces": {"restorer": "x", "strength": 1.0, "fidelity": 0.5},
        "intermediates": False,
        "file_quality": 95,
    }


@example(EVERYTHING)
@example(RenderParams(hires=Hires()))
@given(complete.filter(lambda params: not networks(params.prompt) and not networks(params.negative_prompt)))
def test_what_is_stored_reads_as_it_was(params):
    row = json.loads(json.dumps(stored.written(params)))
    assert stored.understood(row) == (params, {})
    assert RenderParams.from_stored(row) == params


def test_a_plain_job_is_a_few_bytes():
    assert json.dumps(stored.written(RenderParams(prompt="sea"))) == '{"prompt": "sea"}'


def test_a_row_that_holds_everything_reads_as_before():
    row = json.loads(STORED.read_text())
    assert stored.understood(row) == (RenderParams.from_stored(row), {})


@pytest.mark.parametrize(
    ("row", "unknown", "known"),
    [
        ({"foo": 1}, {"foo": 1}, {}),
        ({"hires": {"foo": 3, "scale": 1.5}}, {"hires.foo": 3}, {"hires": {"scale": 1.5}}),
        ({"steps": "many", "mood": {"a": [1]}}, {"steps": "many", "mood": {"a": [1]}}, {}),
        ({"tiling": "hexagons"}, {"tiling": "hexagons"}, {}),
        ({"noise": {"source": "AMD"}}, {"noise.source": "AMD"}, {}),
        ({"sampling": [1]}, {"sampling": [1]}, {}),
        ({"format": "avif", "film": {"s": 3}}, {"format": "avif", "film": {"s": 3}}, {}),
        (
            {"img2img": {"pictures": ["x"]}},
            {"img2img": {"pictures": ["x"]}, "img2img.pictures": ["x"]},
            {},
        ),
        (
            {"img2img": {"picture": "a", "mask": {"shape": 1}}},
            {"img2img.mask": {"shape": 1}, "img2img.mask.shape": 1},
            {"img2img": {"picture": "a"}},
        ),
        ({"sampler": "Euler 5"}, {"sampler": "Euler 5"}, {}),
        ({"schedule": "spiral"}, {"schedule": "spiral"}, {}),
        ({"sampler": "DDIM", "schedule": "karras"}, {"schedule": "karras"}, {"sampler": "DDIM"}),
        ({"hires": {"sampler": "Euler 5"}}, {"hires.sampler": "Euler 5"}, {"hires": {}}),
        ({"hires": {"upscaler": "Sharp"}}, {"hires.upscaler": "Sharp"}, {"hires": {}}),
        ({"hires": {"upscaler": "a [0123456789]"}}, {}, {"hires": {"upscaler": "a [0123456789]"}}),
        (
            {"schedule": "karras", "hires": {"sampler": "DDIM"}},
            {"hires.sampler": "DDIM"},
            {"schedule": "karras", "hires": {}},
        ),
        ({"prompt": "a <lora:ink:1>"}, {}, {"prompt": "a <lora:ink:1>"}),
        ({"prompt": "a <video:waves>"}, {"prompt": "<video:waves>"}, {"prompt": "a <video:waves>"}),
        ({"prompt": "a <lora:ink:a=b>"}, {"prompt": "<lora:ink>"}, {"prompt": "a <lora:ink:a=b>"}),
        ({"negative_prompt": "<lora:ink>"}, {"negative_prompt": "<lora:ink>"}, {"negative_prompt": "<lora:ink>"}),
        ([1], {"params": [1]}, {}),
        (None, {"params": None}, {}),
    ],
)
def test_what_a_newer_version_wrote_is_told_by_name_and_the_rest_is_read(row, unknown, known):
    read = stored.understood(row)
    assert read.unknown == unknown
    assert stored.written(read.params) == known


def test_a_sentence_names_a_few():
    assert stored.names({"hires.foo": 1}) == "hires.foo"
    assert stored.names(dict.fromkeys("abcdefg")) == "a, b, c, d, e and 2 more"
