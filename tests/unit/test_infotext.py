"""The text that a picture carries, as other programs write and read it."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.infotext import reader
from shared.infotext.reader import read
from shared.infotext.writer import text
from shared.params.groups import Hires
from shared.params.render import RenderParams
from shared.params.samplers import SAMPLERS, SCHEDULES
from shared.params.upscalers import UPSCALERS
from tests.support.parameter_strategies import resolved

HASH = "6ce0161689"
# How the ecosystem's programs find the fields of the last line.
FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def params(**given: Any) -> RenderParams:
    defaults = {
        "prompt": "a cat", "checkpoint": f"v1-5-pruned-emaonly [{HASH}]", "width": 512, "height": 768, "seed": 43,
    }  # fmt: skip
    return RenderParams(**(defaults | given))


def write(given: RenderParams) -> str:
    return text(given, version="0.1.0")


def fields(infotext: str) -> dict[str, str]:
    found = FIELD.findall(infotext.splitlines()[-1])
    return {name: json.loads(value) if value.startswith('"') else value for name, value in found}


def names(infotext: str) -> list[str]:
    return list(fields(infotext))


def test_it_reads_as_other_programs_write_it():
    assert write(params(negative_prompt="bad", sampler="DPM++ 2M", clip_skip=2)) == (
        "a cat\n"
        "Negative prompt: bad\n"
        f"Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 43, Size: 512x768, "
        f"Model hash: {HASH}, Model: v1-5-pruned-emaonly, Clip skip: 2, RNG: CPU, Version: stepfarm 0.1.0"
    )


def test_everything_has_its_place():
    given = params(
        sampler="DPM2 a", schedule="exponential", vae="kl.safetensors [735e4c3a44]", tiling="both", emphasis="No norm",
        noise={"variation_seed": 7, "variation_strength": 0.3, "resize_width": 512, "resize_height": 640,
               "eta_seed_delta": 31337, "source": "NV"},
        hires={"steps": 10, "sampler": "Euler", "schedule": "karras", "prompt": "a, b", "negative_prompt": "c"},
        refiner={"checkpoint": "second [0123456789]"},
        sampling={"sigma_min": 0.1, "sigma_max": 9, "rho": 5, "eta": 0.5, "s_noise": 1.1},
        guidance={"skip_below_sigma": 2, "skip_all_steps": True, "skip_early": 0.1, "rescale": 0.7},
    )  # fmt: skip
    assert names(write(given)) == [
        "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model", "VAE hash", "VAE",
        "Variation seed", "Variation seed strength", "Seed resize from", "Denoising strength", "ENSD", "RNG", "Tiling",
        "Hires sampler", "Hires prompt", "Hires negative prompt", "Hires schedule type", "Hires upscale", "Hires steps",
        "Hires upscaler", "Refiner", "Refiner switch at", "Emphasis", "Schedule min sigma", "Schedule max sigma",
        "Schedule rho", "Eta", "Sigma noise", "NGMS", "NGMS all steps", "Skip Early CFG", "CFG rescale", "Version",
    ]  # fmt: skip


def test_a_painted_over_picture_goes_by_its_hashes():
    mask = {"picture": "b" * 64, "content": "latent noise", "area": "only masked", "invert": True}
    written = fields(write(params(img2img={"picture": "a" * 64, "denoising": 0.6, "mask": mask})))
    assert (written["Init picture"], written["Mask picture"]) == ("a" * 64, "b" * 64)
    assert (written["Mask mode"], written["Mask blur"]) == ("Inpaint not masked", "4")
    assert (written["Masked content"], written["Inpaint area"]) == ("latent noise", "Only masked")


def test_without_a_negative_prompt_there_is_no_line_for_it():
    assert [line.partition(":")[0] for line in write(params()).splitlines()] == ["a cat", "Steps"]


def test_prompts_keep_their_lines():
    lines = write(params(prompt="a\nb, c: d", negative_prompt='e\n"f"')).splitlines()
    assert lines[:4] == ["a", "b, c: d", "Negative prompt: e", '"f"']


@pytest.mark.parametrize(
    ("sampler", "schedule", "label"),
    [
        ("Euler a", "automatic", "Automatic"),
        ("Euler a", "uniform", "Uniform"),
        ("Euler", "karras", "Karras"),
        ("DPM++ 2M", "automatic", "Karras"),
        ("DPM++ 2M SDE", "automatic", "Exponential"),
        ("DPM++ 2M", "uniform", "Uniform"),
        ("DDIM", "automatic", "Automatic"),
        ("LCM", "automatic", "Automatic"),
    ],
)
def test_the_schedule_is_the_one_that_was_used(sampler, schedule, label):
    assert fields(write(params(sampler=sampler, schedule=schedule)))["Schedule type"] == label


@pytest.mark.parametrize(
    ("sampler", "second", "label"),
    [
        ("DPM++ 2M", "Euler", "Automatic"),  # "as the first" would be Karras when it is read
        ("DPM++ 2M", "DDIM", "Automatic"),
        ("DPM++ 2M", "DPM++ 2M SDE", "Exponential"),
        ("Euler", "DPM++ 2M", "Karras"),
        ("DPM++ 2M", "DPM2", None),
        ("Euler", "DDIM", None),
    ],
)
def test_the_second_schedule_is_said_where_automatic_means_another_one(sampler, second, label):
    assert fields(write(params(sampler=sampler, hires={"sampler": second}))).get("Hires schedule type") == label


@pytest.mark.parametrize(("scale", "written"), [(7.0, "7"), (7.5, "7.5"), (0, "0"), (1.123456789, "1.123456789")])
def test_the_scale_is_written_short_and_exact(scale, written):
    assert fields(write(params(cfg_scale=scale)))["CFG scale"] == written
    assert float(written) == scale


@pytest.mark.parametrize("name", ["plain", "a, b", "C: d", 'with "quotes"', '"quoted"', " padded ", "back\\slash, ü"])
def test_an_awkward_name_is_read_by_all(name):
    written = write(params(checkpoint=f"{name} [{HASH}]"))
    assert fields(written)["Model"] == name
    assert fields(written)["Version"] == "stepfarm 0.1.0"
    assert read(written).params["checkpoint"] == f"{name} [{HASH}]"


def test_the_sizes_that_sdxl_knows_have_names_of_their_own_behind_those_of_other_programs():
    given = params(
        original_size={"width": 1500, "height": 1001}, crop={"top": 64}, target_size={"width": 1024, "height": 768},
        sdxl_clip_l_skip=True, clip_skip=2, exact=True,
    )  # fmt: skip
    written = fields(write(given))
    assert list(written)[-7:] == [
        "RNG", "SDXL original size", "SDXL crop", "SDXL target size", "SDXL CLIP-L skip", "Exact", "Version",
    ]  # fmt: skip
    assert (written["SDXL original size"], written["SDXL crop"]) == ("1500x1001", "0,64")
    assert (written["SDXL target size"], written["SDXL CLIP-L skip"]) == ("1024x768", "True")
    assert not [name for name in fields(write(params())) if name.startswith("SDXL")]


# Reading back


def named(params: RenderParams) -> RenderParams:
    """The same parameters with the schedules by name that `automatic` stands for."""

    def used(sampler: str, schedule: str) -> str:
        facts = SAMPLERS[sampler]
        is_hidden = facts.automatic == "uniform" or facts.automatic not in SCHEDULES
        return facts.automatic if schedule == "automatic" and not is_hidden else schedule

    changes: dict[str, Any] = {"schedule": used(params.sampler, params.schedule)}
    if params.hires:
        schedule = used(params.hires.sampler or params.sampler, params.hires.schedule or params.schedule)
        is_as_first = not params.hires.schedule and schedule == changes["schedule"]
        changes["hires"] = params.hires.model_copy(update={"schedule": "" if is_as_first else schedule})
    return params.model_copy(update=changes)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(resolved())
def test_what_is_written_is_read_back(given_params):
    found = read(write(given_params))
    assert found.left_out == ()
    assert RenderParams(**found.params) == named(given_params)


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a\nNegative prompt: b", ""),
        ("a\nNegative prompt: b", "c\nNegative prompt: d"),
        (" a  \n\n b ", "\tc\r\n"),
        ("Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 3", "Steps: 1, Seed: 2, Size: 8x8"),
        ("", ""),
        ("", "only this"),
        ("Steps:0,00:", '"'),
        ("Steps: 4, Seed: 1, Version: stepfarm 0.1.0", 'a\n"Steps: 5, Seed: 2'),
        ('say "hi", \\ \u2028 \x0b', "\x85"),
        ("مرحبا 砂漠 🐫", "🙈"),
    ],
)
def test_prompts_that_look_like_something_else_are_read_back(prompt, negative):
    found = read(write(params(prompt=prompt, negative_prompt=negative))).params
    assert (found.get("prompt", ""), found.get("negative_prompt", "")) == (prompt, negative)


# Other programs' texts

PLAIN = """a cat
Negative prompt: bad
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 43, Size: 512x768, Model hash: 6ce0161689, \
Model: v1-5-pruned-emaonly, Clip skip: 2, RNG: CPU, Version: v1.10.1"""
RICH = """a dog <lora:foo:0.8><lora:bar:1:0.5>
Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 42, Face restoration: CodeFormer, \
Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, \
VAE: vae-ft-mse-840000-ema-pruned.safetensors, Variation seed: 7, Variation seed strength: 0.3, \
Seed resize from: 512x640, Denoising strength: 0.7, Clip skip: 2, ENSD: 31337, RNG: CPU, Tiling: True, \
Hires upscale: 2.0, Hires steps: 10, Hires upscaler: Latent, Lora hashes: "foo: abcdef012345, bar: 0123456789ab", \
Version: v1.10.1"""


def line(values: str) -> str:
    """A text whose parameters begin with `values`."""
    return f"a cat\n{values}, RNG: CPU, Seed: 1, Size: 64x64, Steps: 4"


def test_a_plain_text_of_another_program():
    assert read(PLAIN)[:2] == (
        {
            "prompt": "a cat", "negative_prompt": "bad", "steps": 20, "sampler": "DPM++ 2M", "schedule": "karras",
            "cfg_scale": 7.0, "seed": 43, "width": 512, "height": 768, "checkpoint": f"v1-5-pruned-emaonly [{HASH}]",
            "clip_skip": 2, "noise": {"source": "CPU"},
        },
        (),
    )  # fmt: skip


def test_a_rich_text_of_another_program():
    found = read(RICH)
    assert found.params == {
        "prompt": "a dog <lora:foo [abcdef0123]:0.8><lora:bar [0123456789]:1:0.5>", "steps": 20,
        "sampler": "Euler a", "schedule": "automatic", "cfg_scale": 7.5, "seed": 42,
        "width": 512, "height": 768, "checkpoint": f"v1-5-pruned-emaonly [{HASH}]",
        "vae": "vae-ft-mse-840000-ema-pruned.safetensors [735e4c3a44]", "clip_skip": 2, "tiling": "both",
        "noise": {"source": "CPU", "variation_seed": 7, "variation_strength": 0.3, "resize_width": 512,
                  "resize_height": 640, "eta_seed_delta": 31337},
        "hires": {"denoising": 0.7, "scale": 2.0, "steps": 10, "upscaler": "Latent"},
        "faces": {"restorer": "CodeFormer"},
    }  # fmt: skip
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("faces", "written"),
    [
        ({"restorer": f"GFPGANv1.4 [{HASH}]"}, "Face restoration: GFPGAN, "),
        ({"restorer": f"codeformer-v0.1.0 [{HASH}]", "fidelity": 0.25}, "CodeFormer weight: 0.25"),
        ({"restorer": f"mine [{HASH}]", "strength": 0.5}, "Face restoration: mine, "),
    ],
)
def test_restored_faces_are_written_as_other_programs_do_and_read_back(faces, written):
    said = write(params(faces=faces))
    assert "Seed: 43, Face restoration: " in said
    assert written in f"{said}, "
    found = read(said)
    assert (found.params["faces"], found.left_out) == (faces, ())


def test_no_face_restorer_is_none():
    assert "faces" not in read(line("Face restoration: None")).params
    assert not read(line("Face restoration: None")).left_out


@pytest.mark.parametrize(
    ("name", "sampler", "schedule"),
    [
        ("DPM++ 2M Karras", "DPM++ 2M", "karras"),
        ("DPM++ 2M SDE Exponential", "DPM++ 2M SDE", "exponential"),
        ("k_euler_a", "Euler a", None),
        ("euler A", "Euler a", None),
    ],
)
def test_old_names_of_samplers(name, sampler, schedule):
    found = read(line(f"Sampler: {name}")).params
    assert (found["sampler"], found.get("schedule")) == (sampler, schedule)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ("Sampler: Euler Turbo", "Sampler: Euler Turbo: there is no such sampler here"),
        ("Sampler: DDIM, Schedule type: Karras", "Schedule type: Karras: DDIM takes its own schedule instead"),
        ("Sampler: Euler, Schedule type: Zigzag", "Schedule type: Zigzag: Euler takes its own schedule instead"),
        (
            "Sampler: Euler, Schedule type: Karras, Hires upscale: 2, Hires sampler: DDIM",
            "Hires schedule type: Karras: DDIM takes its own schedule instead",
        ),
        ("Model hash: 81761151", "Model hash: 81761151: not the first ten digits of a SHA-256"),
        (
            'ControlNet 0: "Module: canny, Weight: 1"',
            "ControlNet 0: Module: canny, Weight: 1: not read, because it names no model",
        ),
        ("Clip skip: two", "Clip skip: two cannot be understood"),
        ("Token merging ratio: 0.5", "Token merging ratio: 0.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told(values, note):
    assert read(line(values)).left_out == (note,)


def test_noise_of_a_card_is_imitated():
    found = read("a cat\nSteps: 20, Seed: 1, Size: 512x512")
    assert found.params["noise"] == {"source": "NV"}
    assert found.left_out[0].startswith("RNG: GPU")


def test_a_picture_that_is_not_there_is_told_once():
    found = read(line("Denoising strength: 0.6, Mask blur: 8, Masked content: fill"))
    assert "img2img" not in found.params
    assert [note.partition(": what")[0] for note in found.left_out] == [
        "Denoising strength: 0.6, Mask blur: 8, Masked content: fill"
    ]


def test_a_value_out_of_bounds_is_left_out_and_the_rest_kept():
    found = read(line("Clip skip: 99, CFG scale: nan, Variation seed strength: 3"))
    assert found.params["noise"] == {"source": "CPU"}
    assert "clip_skip" not in found.params
    assert "cfg_scale" not in found.params
    assert [note.partition(":")[0] for note in found.left_out] == ["clip_skip", "cfg_scale", "noise.variation_strength"]


def test_a_hash_alone_names_the_checkpoint():
    assert read(line(f"Model hash: {HASH}")).params["checkpoint"] == HASH


def test_values_that_are_json_without_quotes_hide_nothing():
    found = read(line('Hashes: {"vae": "735e4c3a44", "model": "6ce0161689"}, Clip skip: 2'))
    assert found.params["clip_skip"] == 2


@pytest.mark.parametrize("given_text", ["", " \n ", "a cat", "a cat, 8k: yes, sharp: very", "Negative prompt: bad"])
def test_a_text_without_parameters_is_a_prompt(given_text):
    found = read(given_text)
    assert found.params.keys() <= {"prompt", "negative_prompt"}
    assert found.left_out == ()


@pytest.mark.parametrize(
    "hostile",
    [
        "a" * 100_000,
        "a:" * 50_000,
        'aa:"' * 25_000,
        'aa:"\\' * 20_000,
        "aa:" + " " * 100_000,
        "Steps: 1, Seed: 2, " + "x" * 100_000,
        "Steps: 1, Seed: 2, Clip skip: " + "9" * 100_000,
        'Steps: 1, Seed: 2, Size: "' + "\\" * 100_001,
        "Steps: 1, Seed: 2, Size: " + "1x" * 50_000,
        "Steps: 1, Seed: 2, Sampler: " + "Karras " * 14_000,
        "Steps: 1, Seed: 2, Model hash: 0123456789, Model: " + " [" * 50_000,
        "".join(f"unknown {number}: 1, " for number in range(8_000)),
        "<lora:" * 17_000,
        "Negative prompt:\n" * 6_000,
        'a\x00b\nSteps: 1, Seed: 2, Model: a\x00b, Hires upscaler: Latent, Hires prompt: "\\u0000\\ud800"',
        "\ud800 \udfff\nSteps: 1, Seed: 2, Size: 8x8",
    ],
    ids=range(16),
)  # fmt: skip
def test_a_hostile_text_costs_no_time_and_raises_nothing(hostile):
    start = time.process_time()
    found = read(hostile)
    assert time.process_time() - start < 1
    RenderParams(**found.params)
    assert sum(map(len, found.left_out)) < 20_000


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300) | st.from_regex(r'(\w[\w ]{1,9}: ("[^"]*"|\\|[^,]*),? ?\n?){1,9}', fullmatch=True))
def test_no_text_makes_the_reader_raise(anything):
    RenderParams(**read(anything).params)


SDXL = """cinematic photo of a fox, <lora:detail:0.7>
Negative prompt: text, watermark
Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Karras, CFG scale: 5.5, Seed: 1234567890, Size: 832x1216, \
Model hash: 31e35c80fc, Model: sd_xl_base_1.0, VAE hash: 63aeecb90f, VAE: sdxl_vae_fp16fix.safetensors, \
Clip skip: 2, Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.8, \
Lora hashes: "detail: 1cb3ec4fbd5a", Version: v1.10.1"""


def test_a_picture_of_sdxl_with_its_refiner_is_read():
    found = read(SDXL)
    assert RenderParams(**found.params) == RenderParams(
        prompt="cinematic photo of a fox, <lora:detail [1cb3ec4fbd]:0.7>", negative_prompt="text, watermark",
        steps=30, sampler="DPM++ 2M SDE", schedule="karras", cfg_scale=5.5, seed=1234567890, width=832, height=1216,
        clip_skip=2,
        checkpoint="sd_xl_base_1.0 [31e35c80fc]", vae="sdxl_vae_fp16fix.safetensors [63aeecb90f]",
        noise={"source": "NV"}, refiner={"checkpoint": "sd_xl_refiner_1.0 [7440042bbd]", "switch_at": 0.8},
    )  # fmt: skip
    assert [note.partition(":")[0] for note in found.left_out] == ["RNG"]
    again = read(write(RenderParams(**found.params)))
    assert (RenderParams(**again.params), again.left_out) == (RenderParams(**found.params), ())


@pytest.mark.parametrize(
    ("version", "is_told"),
    [
        ("v1.6.0", True), ("v1.7.0-225-gc6a47321", True), ("v1.8.0", False), ("v1.10.1", False), ("v1.60.0", False),
        ("stepfarm 1.6.0", False), ("", False),
    ],
)  # fmt: skip
def test_a_switch_to_the_refiner_that_was_counted_in_steps_is_told(version, is_told):
    said = f", Version: {version}" if version else ""
    found = read(f"Steps: 30, RNG: CPU, Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.7{said}")
    assert found.params["refiner"] == {"checkpoint": "sd_xl_refiner_1.0 [7440042bbd]", "switch_at": 0.7}
    assert [note.partition(": a")[0] for note in found.left_out] == ["Refiner switch at: 0.7"] * is_told


def test_the_pass_that_the_refiner_takes_part_in_is_told_where_it_is_another_one():
    refined = "Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.8, Hires upscale: 2, Hires refiner"
    assert read(line(f"{refined}: second pass")).left_out == ()
    assert read(line(f"{refined}: first pass")).left_out == ("Hires refiner: first pass",)


def test_a_picture_of_sdxl_enlarged_by_a_second_pass_is_read():
    second = "Hires upscale: 2, Hires steps: 15, Hires upscaler: Latent, Denoising strength: 0.4"
    found = RenderParams(**read(f"Steps: 28, Size: 1024x1024, {second}, Noise Schedule: Zero Terminal SNR").params)
    assert (found.width, found.hires.scale, found.hires.denoising) == (1024, 2, 0.4)
    assert found.sampling.zero_terminal_snr


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("SDXL original size: 1024", "SDXL original size: 1024 cannot be understood"),
        ("SDXL original size: 0x1024", "original_size.width: 0 is too small"),
        ("SDXL target size: 1024x9000", "target_size.height: 9000 is too large"),
        ("SDXL crop: 64", "SDXL crop: 64 cannot be understood"),
        ('SDXL crop: "64,99999"', "crop.top: 99999 is too large"),
        ("SDXL CLIP-L skip: 2", "SDXL CLIP-L skip: 2 cannot be understood"),
    ],
)
def test_a_size_that_sdxl_cannot_know_is_left_out_with_the_reason(value, said):
    found = read(line(f"{value}, RNG: CPU"))
    assert found.left_out == (said,)
    assert RenderParams(**found.params).original_size is None


def test_the_names_of_sdxls_values_are_read_whatever_their_case():
    found = read(line('sdxl Original Size: 2048x2048, SDXL CROP: "0, 64", SDXL clip-l skip: true, RNG: CPU'))
    assert found.params["original_size"] == {"width": 2048, "height": 2048}
    assert (found.params["crop"], found.params["sdxl_clip_l_skip"]) == ({"left": 0, "top": 64}, True)


def test_what_cannot_be_taken_out_ends_the_search(monkeypatch):
    wrong = [((), "does not fit together"), (("hires", "scale"), "is not there")]
    monkeypatch.setattr(reader, "_problems", lambda *_: wrong)
    assert read(line("Clip skip: 2")).params["clip_skip"] == 2


def test_an_upscaler_goes_by_name_and_hash_as_checkpoints_do():
    given = params(hires={"upscaler": "4x sharp [0123456789]"})
    written = fields(write(given))
    assert (written["Hires upscaler"], written["Hires upscaler hash"]) == ("4x sharp", "0123456789")
    assert read(write(given)).params["hires"]["upscaler"] == "4x sharp [0123456789]"
    assert "Hires upscaler hash" not in fields(write(params(hires={"upscaler": "Lanczos"})))
    assert read(line("Hires upscaler: R-ESRGAN 4x+")).params["hires"] == {"upscaler": "R-ESRGAN 4x+"}


def test_every_upscaler_is_kept():
    for name in UPSCALERS:
        assert read(line(f"Hires upscaler: {name}")).params["hires"] == {"upscaler": name}


# Adapters: tags with the hashes of their files.

HASHES = {
    "lora:ink": "0123456789ab", "lora:style/a, b": "ab" * 6, "lora:pin [ffffffffff]": "c" * 12,
    "hypernet:haze": "d" * 12,
}  # fmt: skip
TAGGED = RenderParams(
    prompt="<lora:ink:0.8> a boat <lora:style/a, b:te=1:unet=0@0,1@0.5> <lora:pin [ffffffffff]> <hypernet:haze:0.5>",
    checkpoint=f"sea [{HASH}]", width=64, height=64, seed=7, hires=Hires(prompt="<lora:INK:-1>"),
)  # fmt: skip


def test_hashes_of_adapters_are_written_as_other_programs_do():
    said = text(TAGGED, version="1", hashes=HASHES)
    assert said.startswith(TAGGED.prompt)
    assert f'Lora hashes: "ink: 0123456789ab, style/a, b: {"ab" * 6}, pin: {"c" * 12}"' in said
    assert f'Hypernet hashes: "haze: {"d" * 12}"' in said
    assert "hashes" not in text(TAGGED, version="1")


def test_tags_name_their_files_by_title_once_they_are_read():
    found = read(text(TAGGED, version="1", hashes=HASHES))
    assert found.left_out == ()
    assert found.params["prompt"] == (
        "<lora:ink [0123456789]:0.8> a boat <lora:style/a, b [ababababab]:te=1:unet=0@0,1@0.5> "
        "<lora:pin [ffffffffff]> <hypernet:haze [dddddddddd]:0.5>"
    )
    assert found.params["hires"]["prompt"] == "<lora:INK [0123456789]:-1>"
    again = read(text(RenderParams(**found.params), version="1", hashes=HASHES))
    assert again.params == found.params


def test_hashes_in_the_list_of_all_files_count_too():
    listed = '{"model": "6ce0161689", "lora:ink": "ABCDEF0123", "lora:x": 7, "lora:y": "?"}'
    found = read(f"<lora:ink:1> <lora:x>\nSteps: 4, Seed: 1, Size: 64x64, RNG: CPU, Hashes: {listed}")
    assert found.params["prompt"] == "<lora:ink [abcdef0123]:1> <lora:x>"


@pytest.mark.parametrize(
    ("prompt", "kept", "note"),
    [
        ("a <lora:ink:0.5:MIDD>", "a ", "lora ink: the prompt has a tag that cannot be read"),
        ("a <lora:ink:1> <wildcard:b>", "a <lora:ink:1> ", "wildcard b: the prompt has a tag <wildcard:…>"),
        ("a # <wildcard:b>", "a # <wildcard:b>", None),
    ],
)
def test_tags_that_mean_nothing_here_are_taken_out_with_a_note(prompt, kept, note):
    found = read(line("CFG scale: 7").replace("a cat", prompt))
    assert found.params["prompt"] == kept
    assert [one[: len(note or "")] for one in found.left_out] == ([note] if note else [])


def test_a_tag_in_a_negative_prompt_is_taken_out_with_a_note():
    found = read(line("CFG scale: 7").replace("a cat", "a cat\nNegative prompt: bad <lora:ink:1>"))
    assert found.params["negative_prompt"] == "bad "
    assert found.left_out == ("lora ink: it stood in the negative prompt, where no tag acts",)


@pytest.mark.parametrize(
    "prompt", ["<lora:" * 40_000 + "#>", "<lora:a>" * 30_000, "#<lora:a>" * 30_000, "<a:" + "b:" * 90_000 + ">"]
)
def test_tags_are_read_in_linear_time(prompt):
    read(f'{prompt}\nSteps: 4, Seed: 1, Size: 64x64, RNG: CPU, Lora hashes: "{"a: 0123456789ab, " * 500}"')
