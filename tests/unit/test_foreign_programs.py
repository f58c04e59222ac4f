"""Texts of other programs, by what those document or what their files show (own words, the farm's demo checkpoints)."""

from __future__ import annotations

import json
import time
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from shared.infotext import files
from shared.infotext.reader import Read, read
from shared.params.render import RenderParams

PROMPT, NEGATIVE = "a lighthouse on a cliff, evening", "blurry, text"
VALUES = "Steps: 12, Sampler: Euler, CFG scale: 5, Seed: 17, Size: 192x128, RNG: CPU"
PLAIN = {
    "prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 12, "sampler": "Euler", "cfg_scale": 5, "seed": 17,
    "width": 192, "height": 128,
}  # fmt: skip


def value(params: Any, path: str) -> Any:
    for name in path.split("."):
        params = params.get(name) if isinstance(params, dict) else None
    return params


def check(found: Read, expected: dict[str, Any]) -> None:
    assert {path: value(found.params, path) for path in expected} == expected
    RenderParams(**found.params)


def notes(found: Read) -> str:
    return "\n".join(found.left_out)


# The `parameters` text, as it is found in circulation.


@pytest.mark.parametrize(
    "text",
    [
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES}",
        f"\ufeff{PROMPT}\r\nNegative prompt: {NEGATIVE}\r\n{VALUES}\r\n",
        f"  {PROMPT}  \n\n  Negative prompt:   {NEGATIVE}\n\n{VALUES}  \n\n",
        f"{PROMPT}\nNegative Prompt: {NEGATIVE}\n{VALUES}",
        f"{PROMPT} Negative prompt: {NEGATIVE} {VALUES}",
        f"{PROMPT} Negative prompt: {NEGATIVE} {VALUES}\n",
        f"{PROMPT}\nNegative prompt: {NEGATIVE} {VALUES}",
        f"{PROMPT}, Negative prompt: {NEGATIVE}, {VALUES}",
        f'{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES}, ADetailer prompt: "face\nSteps: 5, Seed: 9", Version: 1',
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n" + VALUES.replace(": 12,", ": 12.0,").replace(": 17,", ": 17.0,"),
        f"{PROMPT}. Negative prompt: {NEGATIVE}. {VALUES}".replace(". N", " N").replace("text.", "text"),
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n" + VALUES.replace(", ", ",\n"),
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n" + VALUES.replace(", ", "\n"),
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n" + VALUES.replace("Seed: 17", "Seed:\n17"),
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES}\nTemplate: a {{lighthouse|mill}}, Steps: 99, Seed: 1",
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES}\nTemplate: a\nb\nNegative Template: c, Seed: 1",
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES},\nVersion: v1.6.0",
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES}\nVersion: v1.6.0",
        f'{PROMPT}\nNegative prompt: {NEGATIVE}\nSteps: 12, Lora hashes: "a: b,\nc: d", {VALUES[11:]}',
        f'{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES}, Civitai resources: [{{"a": "Seed: 3, Size: 8x8"}}]',
        f'{PROMPT}\nNegative prompt: {NEGATIVE}\n{VALUES}, Hashes: {{"model": "70fdb79967", "x": "}}, Steps: 4"}}',
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n" + VALUES.replace("CFG scale", "CFG Scale").replace("Size", "size"),
        f"{PROMPT}\nNegative prompt: {NEGATIVE}\n" + VALUES.replace("Sampler: ", "Sampler: k_"),
    ],
    ids=range(23),
)
def test_a_text_is_read_however_it_is_laid_out(text):
    check(read(text), PLAIN)


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a sign that says Steps: 3, mind the gap", ""),
        ("Steps: up to the temple, marble", "fog"),
        ("a sign: Negative prompt: none", "fog"),
        ("Model: a woman, Size: large, photo", ""),
        ("Steps: 3, Sampler: Euler, Seed: 5", "fog"),
        ("{lighthouse|mill} on a cliff", ""),
        ("[lighthouse:mill:0.5]", "fog"),
        ("", "fog"),
        ("a: b, c: d, e: f, g: h", "i: j, k: l, m: n"),
        ('{"a": 1}', ""),
    ],
)
def test_prompts_that_hold_what_looks_like_values_stay_prompts(prompt, negative):
    text = "\n".join(filter(None, [prompt, f"Negative prompt: {negative}" if negative else "", VALUES]))
    check(read(text), {"prompt": prompt or None, "negative_prompt": negative or None, "steps": 12, "seed": 17})


def test_one_line_without_a_comma_is_taken_apart():
    check(read(f"a lighthouse {VALUES}"), {"prompt": "a lighthouse", "negative_prompt": None, "steps": 12})
    check(read(f"a lighthouse Negative prompt: fog {VALUES}"), {"prompt": "a lighthouse", "negative_prompt": "fog"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Steps: 20", {"steps": 20}),
        ("Steps: 20, Sampler: Heun", {"steps": 20, "sampler": "Heun"}),
        ("Seed: 5, Size: 64x96", {"seed": 5, "width": 64, "height": 96}),
        ("Size: 64x96", {"width": 64}),
    ],
)
def test_few_values_are_values(line, expected):
    check(read(f"a cat\nNegative prompt: bad\n{line}"), {"prompt": "a cat", "negative_prompt": "bad"} | expected)


def test_what_stands_behind_the_values_is_told_and_no_prompt():
    found = read(f"{PROMPT}\n{VALUES}\nTemplate: a {{lighthouse|mill}}\non a cliff\nNegative Template: fog")
    check(found, {"prompt": PROMPT, "negative_prompt": None})
    assert "Template: a {lighthouse|mill}: not read" in notes(found)
    assert "Negative Template: fog: not read" in notes(found)


@pytest.mark.parametrize(
    "text", ["None", "none", "null", "undefined", " \n", "[]", "{}", "Created with GIMP", '{"a": "b"}', '{"prompt": {']
)
def test_what_says_nothing_is_no_prompt(text):
    assert read(text).params == {}


@pytest.mark.parametrize(
    ("size", "cut"), [("198x133", (192, 128)), ("512X770", (512, 768)), ("64 x 71", (64, 64)), ("768x512", (768, 512))]
)
def test_sizes_are_cut_to_whole_cells(size, cut):
    found = read(f"a\nSteps: 2, Seed: 1, RNG: CPU, Size: {size}, Seed resize from: 100x100")
    check(found, {"width": cut[0], "height": cut[1], "noise.resize_width": 96})
    assert ("cut to" in found.left_out[0]) == (size == "198x133" or len(found.left_out) == 2 or size == "768x512")


def test_a_side_of_less_than_a_cell_is_not_cut_to_nothing():
    found = read("a\nSteps: 2, Seed: 1, RNG: CPU, Size: 5x64")
    assert "width" not in found.params
    assert "width: 5" in notes(found)


def test_a_schedule_in_a_samplers_name_counts_where_none_is_said():
    check(read("a\nSteps: 2, Sampler: Euler Karras, Schedule type: Automatic, Seed: 1"), {"schedule": "karras"})
    check(read("a\nSteps: 2, Sampler: euler_karras, Schedule type: Simple, Seed: 1"), {"schedule": "simple"})


def test_networks_that_only_a_list_names_are_told():
    listed = '[{"type":"checkpoint","modelName":"x"},{"type":"lora","weight":1,"modelName":"Ink, fast"}]'
    found = read(f"a\n{VALUES}, Civitai resources: {listed}, Civitai metadata: {{}}")
    assert found.left_out == ("lora Ink, fast: not read; a tag in the prompt names it, such as <lora:name:0.8>",)


@pytest.mark.parametrize("seed", [2**53 + 1, 5441180189181032878, 2**64 - 1])
@pytest.mark.parametrize("form", ["Steps: 12, Seed: {}", '{{"prompt": "a", "steps": 12, "seed": {}}}'])
def test_no_digit_of_a_seed_is_lost(seed, form):
    assert read(form.format(seed)).params["seed"] == seed


# Programs that write JSON.


def plain_json(**changes: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "seed": 17, "steps": 12, "width": 192, "height": 128} | changes


PROGRAMS = {
    "SwarmUI": {
        "sui_image_params": plain_json(
            negativeprompt=NEGATIVE, model="sd15/scenes-v1", cfgscale=5.0, sampler="euler", scheduler="karras",
            clipstopatlayer=-2, loras=["ink"], swarm_version="0.9.7.4",
        ),
        "sui_extra_data": {"date": "2024-01-01"},
    },
    "Fooocus": {
        "prompt": PROMPT, "negative_prompt": NEGATIVE, "steps": 12, "guidance_scale": 5.0, "seed": "17",
        "resolution": "(192, 128)", "base_model": "scenes-v1", "sampler": "euler", "scheduler": "karras",
        "clip_skip": 2, "metadata_scheme": "fooocus", "vae": "Default (model)", "refiner_model": "None",
        "styles": "['Fooocus V2']", "loras": [["ink.safetensors", 0.5, "ab"]], "full_prompt": [PROMPT, "more"],
    },
    "RuinedFooocus": {
        "Prompt": PROMPT, "Negative": NEGATIVE, "steps": 12, "cfg": 5, "width": 192, "height": 128, "seed": 17,
        "sampler_name": "euler", "scheduler": "karras", "base_model_name": "scenes-v1", "loras": [["0.5", "ink"]],
        "clip_skip": 2, "software": "RuinedFooocus",
    },
    "Fooocus labels": {
        "Prompt": PROMPT, "Negative Prompt": NEGATIVE, "Performance": "Speed", "Resolution": "(192, 128)",
        "Guidance Scale": 5, "Base Model": "scenes-v1", "Sampler": "euler", "Scheduler": "karras", "Seed": 17,
        "Steps": 12, "LoRA 1": "ink : 0.5", "CLIP Skip": 2,
    },
    "Easy Diffusion": {
        "prompt": PROMPT, "seed": 17, "used_random_seed": True, "negative_prompt": NEGATIVE, "num_inference_steps": 12,
        "guidance_scale": 5, "width": 192, "height": 128, "use_stable_diffusion_model": "scenes-v1", "clip_skip": True,
        "sampler_name": "euler", "use_vae_model": "", "use_lora_model": "ink",
    },
    "Draw Things": {
        "c": PROMPT, "uc": NEGATIVE, "steps": 12, "scale": 5, "seed": 17, "size": "192x128", "sampler": "Euler",
        "model": "scenes-v1.ckpt", "strength": 1, "lora": [{"model": "ink", "weight": 0.5}], "v2": {"x": 1},
    },
    "InvokeAI": {
        "positive_prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 17, "steps": 12, "cfg_scale": 5.0,
        "scheduler": "euler", "width": 192, "height": 128, "clip_skip": 1, "rand_device": "cpu",
        "model": {"name": "scenes-v1", "hash": "blake3:0", "base": "sd-1"}, "app_version": "4.2.0",
        "loras": [{"model": {"name": "ink"}, "weight": 0.5}], "vae": None,
    },
    "InvokeAI 2": {
        "model": "stable diffusion", "model_weights": "scenes-v1", "model_hash": "ab", "app_version": "2.3.5",
        "image": {
            "prompt": [{"prompt": f"{PROMPT} [{NEGATIVE}]", "weight": 1.0}], "steps": 12, "cfg_scale": 5.0, "seed": 17,
            "width": 192, "height": 128, "sampler": "k_euler", "type": "txt2img", "facetool": "ink",
        },
    },
    "NovelAI 4": {
        "prompt": PROMPT, "steps": 12, "height": 128, "width": 192, "scale": 5.0, "seed": 17, "sampler": "k_euler",
        "noise_schedule": "karras", "uc": NEGATIVE, "sm": False, "cfg_rescale": 0.0, "request_type": "x",
        "v4_prompt": {"caption": {"base_caption": PROMPT, "char_captions": [{"char_caption": "ink"}]}},
    },
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_programs_json_is_read(program):
    found = read(json.dumps(PROGRAMS[program]))
    check(found, PLAIN)
    assert "ink" in notes(found)  # what it has beside, the farm has not


@pytest.mark.parametrize("program", ["SwarmUI", "Fooocus", "RuinedFooocus", "Fooocus labels", "InvokeAI", "NovelAI 4"])
def test_what_a_programs_json_says_further_is_read(program):
    found = read(json.dumps(PROGRAMS[program]))
    assert found.params["clip_skip"] == 2
    if "InvokeAI" not in program:
        assert found.params["schedule"] == "karras"
    if "NovelAI" not in program:
        assert found.params["noise"]["source"] == "CPU"
        assert "scenes-v1" in found.params["checkpoint"]
    else:
        assert found.params["noise"]["eta_seed_delta"] == 31337


def test_lines_of_names_are_read():
    text = (
        f"Prompt: {PROMPT}\nNegative Prompt: {NEGATIVE}\nSeed: 17\nStable Diffusion model: scenes-v1\nClip Skip: True\n"
        "Sampler: euler\nWidth: 192\nHeight: 128\nSteps: 12\nGuidance Scale: 5\nUse Upscaling: None"
    )
    check(read(text), PLAIN | {"checkpoint": "scenes-v1"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"nodes": [], "links": [], "version": 0.4}', "ComfyUI"),
        ('{"1": {"class_type": "Mystery", "inputs": {"text": "a cat"}}}', "ComfyUI"),
        ('{"Software": "NovelAI", "Description": "a cat", "Comment": "{"}', "NovelAI"),
        ('{"software": "Dreamer 3", "idea": "a cat"}', "Dreamer 3"),
        ('{"idea": "a cat"}', "not known"),
        ('{"sui_image_params": {"prompt": "a cat", "seed', "damaged"),
        ("[1, 2, 3]", "damaged, cut off or no object"),
    ],
)
def test_what_cannot_be_read_is_told_and_no_prompt(text, told):
    found = read(text)
    assert found.params == {}
    assert told in notes(found)


# ComfyUI's graph.


def graph(**changes: dict[str, Any]) -> dict[str, Any]:
    nodes = {
        "3": ("KSampler", {
            "seed": 17, "steps": 12, "cfg": 5.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1,
            "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        }),
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "sd15/scenes-v1.safetensors"}),
        "5": ("EmptyLatentImage", {"width": 192, "height": 128, "batch_size": 1}),
        "6": ("CLIPTextEncode", {"text": PROMPT, "clip": ["4", 1]}),
        "7": ("CLIPTextEncode", {"text": NEGATIVE, "clip": ["4", 1]}),
        "8": ("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
        "9": ("SaveImage", {"filename_prefix": "x", "images": ["8", 0]}),
    }  # fmt: skip
    made = {name: {"class_type": kind, "inputs": dict(inputs)} for name, (kind, inputs) in nodes.items()}
    for name, change in changes.items():
        node = made.setdefault(name.removeprefix("n"), {"class_type": "", "inputs": {}})
        node["class_type"] = change.pop("kind", node["class_type"])
        node["inputs"].update(change)
    return made


def test_a_graph_is_read_along_its_links():
    found = read(json.dumps(graph()))
    check(found, PLAIN | {"schedule": "karras", "noise.source": "CPU"})
    assert "scenes-v1" in found.params["checkpoint"]
    assert found.left_out == ()


@pytest.mark.parametrize("holder", ["prompt", "string", "whole"])
def test_a_graph_is_found_in_what_holds_it(holder):
    nodes = graph()
    held = {"prompt": {"prompt": nodes}, "string": {"prompt": json.dumps(nodes), "workflow": {}}, "whole": nodes}
    check(read(json.dumps(held[holder])), PLAIN)


def test_values_that_come_from_nodes_of_their_own_are_followed():
    nodes = graph(
        n3={"seed": ["20", 0], "steps": ["21", 0]},
        n6={"text": ["22", 0]},
        n5={"width": ["23", 0]},
        n20={"kind": "Seed (rgthree)", "seed": 17},
        n21={"kind": "PrimitiveInt", "value": 12},
        n22={"kind": "PrimitiveStringMultiline", "value": PROMPT},
        n23={"kind": "INTConstant", "value": 192},
    )
    check(read(json.dumps(nodes)), PLAIN)


def test_a_text_in_pieces_is_put_together():
    nodes = graph(
        n6={"text": ["22", 0]},
        n22={"kind": "Text Concatenate", "text_a": "a lighthouse on a cliff", "text_b": ["23", 0], "delimiter": ", "},
        n23={"kind": "Text Multiline", "text": "evening"},
    )
    check(read(json.dumps(nodes)), PLAIN)


def test_networks_vae_clip_skip_and_conditions_on_the_way_are_told_or_read():
    nodes = graph(
        n3={"model": ["10", 0], "positive": ["12", 0], "negative": ["12", 1]},
        n6={"clip": ["11", 0]},
        n8={"vae": ["13", 0]},
        n10={"kind": "LoraLoader", "lora_name": "ink.safetensors", "model": ["4", 0], "clip": ["4", 1]},
        n11={"kind": "CLIPSetLastLayer", "stop_at_clip_layer": -2, "clip": ["10", 1]},
        n12={"kind": "ControlNetApplyAdvanced", "positive": ["6", 0], "negative": ["7", 0], "strength": 1},
        n13={"kind": "VAELoader", "vae_name": "kl-f8.safetensors"},
    )
    found = read(json.dumps(nodes))
    check(found, PLAIN | {"clip_skip": 2})
    assert "kl-f8" in found.params["vae"]
    assert "lora ink.safetensors" in notes(found)
    assert "ControlNetApplyAdvanced" in notes(found)


def lora(file: Any, unet: Any = 0.8, text: Any = 0.8, *, behind: str = "4") -> dict[str, Any]:
    """A node that applies a LoRA to the model and to the text encoder of the node `behind` it."""
    strengths = {"strength_model": unet, "strength_clip": text}
    return {"kind": "LoraLoader", "lora_name": file, "model": [behind, 0], "clip": [behind, 1]} | strengths


def of_model(file: str, unet: float, *, behind: str = "4") -> dict[str, Any]:
    return {"kind": "LoraLoaderModelOnly", "lora_name": file, "model": [behind, 0], "strength_model": unet}


CHAINS: dict[str, tuple[dict[str, Any], str]] = {
    "one": ({"n10": lora("ink.safetensors")}, "<lora:ink:0.8>"),
    "strengths of their own": ({"n10": lora("style\\ink.pt", 1.5, -0.25)}, "<lora:ink:-0.25:1.5>"),
    "the model alone": ({"n10": of_model("a/b/ink v1.2.safetensors", 1)}, "<lora:ink v1.2:0:1>"),
    "a chain, in the order in which they are applied": (
        {
            "n12": lora("ink.safetensors"),
            "n11": of_model("wash.bin", 0.3, behind="12"),
            "n10": lora("fog", 1, 0, behind="11") | {"clip": ["12", 1]},
        },
        "<lora:ink:0.8> <lora:wash:0:0.3> <lora:fog:0:1>",
    ),
    "one file twice": ({"n11": lora("ink.pt", 0.1, 1), "n10": lora("ink.pt", 0.2, 0, behind="11")}, "<lora:ink:1:0.3>"),
    "strengths from nodes of their own": (
        {
            "n10": lora(["20", 0], ["21", 0]),
            "n20": {"kind": "PrimitiveString", "value": "ink.pt"},
            "n21": {"kind": "PrimitiveFloat", "value": 0.8},
        },
        "<lora:ink:0.8>",
    ),
    "none": ({"n10": lora("None")}, ""),
    "without strength": ({"n10": lora("ink.pt", 0, 0)}, ""),
}


@pytest.mark.parametrize("name", CHAINS)
def test_loras_of_a_graph_become_tags(name):
    changes, tags = CHAINS[name]
    found = read(json.dumps(graph(n3={"model": ["10", 0]}, n6={"clip": ["10", 1]}, **changes)))
    check(found, PLAIN | {"prompt": f"{PROMPT} {tags}".strip(), "schedule": "karras", "noise.source": "CPU"})
    assert found.left_out == ()


def test_a_lora_that_the_text_encoder_is_taken_from_before_acts_on_the_model_alone():
    before = graph(n3={"model": ["10", 0]}, n10=lora("ink.pt"))
    check(read(json.dumps(before)), PLAIN | {"prompt": f"{PROMPT} <lora:ink:0:0.8>"})
    on_text = graph(n6={"clip": ["10", 1]}, n10=lora("ink.pt"))
    check(read(json.dumps(on_text)), PLAIN | {"prompt": f"{PROMPT} <lora:ink:0.8:0>"})


@pytest.mark.parametrize(
    "node",
    [
        lora("in<k.pt"), lora("in:k.pt"), lora("i" * 1000), lora("ink.pt", "much"), lora("ink.pt", 11),
        lora("ink.pt", float("nan")), lora("ink.pt", text=True), lora("ink.pt", 10**400), lora("ink.pt", ["10", 0]),
        lora(["10", 0]), lora({"x": 1}), lora("in\nk.pt"),
        {"kind": "LoraLoader", "lora_name": "ink.pt", "model": ["10", 0], "clip": ["10", 1]},
    ],
)  # fmt: skip
def test_a_lora_that_no_tag_can_name_is_told(node):
    found = read(json.dumps(graph(n3={"model": ["10", 0]}, n6={"clip": ["10", 1]}, n10=node)))
    assert found.params["prompt"] == PROMPT
    is_named = isinstance(node["lora_name"], str)
    assert ("not read; a tag in the prompt names it" in notes(found)) == is_named


@pytest.mark.parametrize(
    "node",
    [
        {"kind": "Lora Loader Stack (rgthree)", "lora_01": "ink.pt", "strength_01": 0.8, "model": ["4", 0]},
        lora({"content": "ink.pt"}) | {"kind": "LoraLoader|pysssss"},
        lora("ink.pt") | {"kind": "LoraLoaderBlockWeight", "block_vector": "1,0,0,0,1"},
    ],
)
def test_nodes_that_say_more_than_a_tag_are_named(node):
    kind = node["kind"]
    found = read(json.dumps(graph(n3={"model": ["10", 0]}, n6={"clip": ["10", 1]}, n10=node)))
    assert found.params["prompt"] == PROMPT
    assert kind in notes(found)


def test_tags_that_are_words_to_the_text_encoder_of_a_graph_apply_nothing():
    text = {"clip": ["10", 1], "text": f"{PROMPT} <lora:ink:0.5>"}
    found = read(json.dumps(graph(n3={"model": ["10", 0]}, n6=text, n10=lora("ink.pt", 0.8, 0.6))))
    assert found.params["prompt"] == f"{PROMPT} <lora:ink:0.6:0.8>"
    assert "tags in the positive prompt" in notes(found)


def test_a_graph_of_very_many_loras_is_read_in_bounded_time():
    many = {f"n{at}": lora(f"ink-{at}.pt", behind=str(at + 1)) for at in range(10, 1000)}
    nodes = graph(n3={"model": ["10", 0]}, n6={"clip": ["10", 1]}, **many)
    nodes["999"]["inputs"]["model"] = ["10", 0]  # a circle
    found = read(json.dumps(nodes))
    assert 10 < found.params["prompt"].count("<lora:") <= 100
    assert len(notes(found)) < 10_000


def of_sdxl(**changes: Any) -> dict[str, Any]:
    """The inputs of the node that encodes a text for SDXL."""
    sizes = {"width": 2048, "height": 1536, "crop_w": 64, "crop_h": 0, "target_width": 1024, "target_height": 768}
    return {"kind": "CLIPTextEncodeSDXL", "text": None, "text_g": PROMPT, "text_l": PROMPT} | sizes | changes


def test_the_sizes_that_sdxls_encoders_were_given_are_read():
    found = read(json.dumps(graph(n6=of_sdxl())))
    sizes = {
        "original_size": {"width": 2048, "height": 1536}, "crop": {"left": 64, "top": 0},
        "target_size": {"width": 1024, "height": 768},
    }  # fmt: skip
    check(found, PLAIN | sizes)
    assert found.left_out == ()


def test_sizes_of_sdxl_that_are_the_pictures_own_are_left_to_the_default():
    own = {"width": 192, "height": 128, "crop_w": 0, "target_width": 192, "target_height": 128}
    assert not read(json.dumps(graph(n6=of_sdxl(**own)))).params.keys() & {"original_size", "crop", "target_size"}


@pytest.mark.parametrize("wrong", [None, "wide", 1.5, True, ["99", 0], {"a": 1}])
def test_a_size_of_sdxl_that_is_no_number_is_left_out(wrong):
    found = read(json.dumps(graph(n6=of_sdxl(width=wrong, crop_h=wrong))))
    assert not found.params.keys() & {"original_size", "crop"}
    assert found.params["target_size"] == {"width": 1024, "height": 768}


def test_a_size_of_sdxl_beyond_its_range_is_told():
    found = read(json.dumps(graph(n6=of_sdxl(width=16384))))
    assert "original_size" not in found.params
    assert "original_size.width: 16384 is too large" in notes(found)


def test_a_text_for_one_encoder_of_sdxl_alone_is_told():
    found = read(json.dumps(graph(n6=of_sdxl(text_l="a storm"), n7=of_sdxl(text_g=NEGATIVE, text_l=f" {NEGATIVE}"))))
    check(found, PLAIN)
    assert notes(found) == "ComfyUI: positive prompt of CLIP-L alone: a storm: both encoders read one text here"


def test_a_custom_sampler_is_read():
    nodes = graph(
        n3={"kind": "Gone"},
        n30={
            "kind": "SamplerCustomAdvanced", "noise": ["31", 0], "guider": ["32", 0], "sampler": ["33", 0],
            "sigmas": ["34", 0], "latent_image": ["5", 0],
        },
        n31={"kind": "RandomNoise", "noise_seed": 17},
        n32={"kind": "CFGGuider", "cfg": 5, "positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0]},
        n33={"kind": "KSamplerSelect", "sampler_name": "euler"},
        n34={"kind": "BasicScheduler", "scheduler": "karras", "steps": 12, "denoise": 1, "model": ["4", 0]},
    )  # fmt: skip
    nodes["3"]["inputs"] = {}
    found = read(json.dumps(nodes))
    check(found, PLAIN | {"schedule": "karras"})
    assert "scenes-v1" in found.params["checkpoint"]


def test_of_several_samplers_the_last_is_read_and_that_is_told():
    nodes = graph(
        n40={
            "kind": "KSampler", "seed": 99, "steps": 7, "cfg": 3.0, "sampler_name": "heun", "scheduler": "normal",
            "denoise": 0.5, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["41", 0],
        },
        n41={"kind": "LatentUpscaleBy", "samples": ["3", 0], "scale_by": 1.5},
        n8={"samples": ["40", 0]},
    )  # fmt: skip
    found = read(json.dumps(nodes))
    check(found, {"prompt": PROMPT, "seed": 99, "steps": 7, "sampler": "Heun", "width": 288, "height": 192})
    assert "2 samplers" in notes(found)


def test_a_sampler_without_a_counterpart_is_told():
    found = read(json.dumps(graph(n3={"sampler_name": "heunpp2"})))
    check(found, PLAIN | {"sampler": None})
    assert "heunpp2" in notes(found)


@pytest.mark.parametrize("name", ["uni_pc_bh2", "dpmpp_2m_sde_gpu"])
def test_a_sampler_that_is_nearly_the_same_is_taken(name):
    found = read(json.dumps(graph(n3={"sampler_name": name})))
    assert found.params["sampler"] in {"UniPC", "DPM++ 2M SDE"}
    assert ("bh2" in notes(found)) == (name == "uni_pc_bh2")


def test_links_in_a_circle_end():
    nodes = graph(n6={"text": ["6", 0], "conditioning": ["6", 0]}, n5={"width": ["5", 0], "samples": ["5", 0]})
    nodes["4"]["inputs"] = {"model": ["3", 0]}
    assert read(json.dumps(nodes)).params["steps"] == 12


FIELDS = [
    *(
        "prompt",
        "seed",
        "steps",
        "class_type",
        "inputs",
        "positive",
        "sampler_name",
        "latent_image",
        "Comment",
        "image",
    ),
    *("sui_image_params", "uc", "c", "1", "model", "positive_prompt", "v4_prompt", "caption", "scheduler", "width"),
    *("size", "Dream", "nodes", "links", "Software", "strength", "clip_skip"),
]
PLAIN_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9), objects, max_leaves=30)
)
def test_no_json_makes_the_reader_raise(document):
    RenderParams(**read(json.dumps(document)).params)


def chain(samplers: int) -> str:
    """A graph of so many samplers, each of which starts from what the next one made."""
    inputs = {"sampler_name": "euler", "seed": 1}
    links = ({"positive": [str(n + 1), 0], "latent_image": [str(n + 1), 0]} for n in range(samplers))
    return json.dumps({str(n): {"class_type": "KSampler", "inputs": inputs | link} for n, link in enumerate(links)})


@pytest.mark.parametrize(
    "hostile",
    [
        chain(1800),
        '{"prompt":' * 20_000,
        "[" * 200_000,
        "a: [" * 60_000,
        'aa: {"' * 40_000,
        "Prompt: a\n" * 20_000,
        "Steps: 1,\n" * 20_000,
        "a, Steps: 1, " * 20_000,
        "Size: 8x8\n" * 20_000,
        'Seed: "\\"' + '\\"' * 100_000,
        "x" * 300_000,
    ],
    ids=range(11),
)  # fmt: skip
def test_hostile_texts_cost_little(hostile):
    begin = time.process_time()
    found = read(hostile)
    assert time.process_time() - begin < 2
    assert sum(map(len, found.left_out)) < 20_000


# Where they stand.


def png(**chunks: str) -> str:
    info = PngInfo()
    for name, text in chunks.items():
        info.add_itxt(name.replace("__", "-"), text)
    out = BytesIO()
    Image.new("RGB", (192, 128)).save(out, "PNG", pnginfo=info)
    with Image.open(BytesIO(out.getvalue())) as picture:
        return files.text(picture)


@pytest.mark.parametrize(
    "chunks",
    [
        {"prompt": json.dumps(graph()), "workflow": '{"nodes": [], "links": []}'},
        {"parameters": "None", "prompt": json.dumps(graph())},
        {"invokeai_metadata": json.dumps(PROGRAMS["InvokeAI"]), "invokeai_graph": "{}"},
        {"sd__metadata": json.dumps(PROGRAMS["InvokeAI 2"]), "Dream": "x"},
        {"Dream": f'"{PROMPT} [{NEGATIVE}]" -s 12 -S 17 -W 192 -H 128 -C 5.0 -A k_euler'},
        {"Software": "NovelAI", "Comment": json.dumps(PROGRAMS["NovelAI 4"]), "Description": "x"},
        {name: str(value) for name, value in PROGRAMS["Easy Diffusion"].items()},
        {"parameters": json.dumps(PROGRAMS["Fooocus"]), "fooocus_scheme": "fooocus"},
        {"generation_data": json.dumps(plain_json(negativePrompt=NEGATIVE, cfgScale=5, samplerName="euler")) + "\x00"},
        {
            "XML:com.adobe.xmp": "<x:xmpmeta><rdf:Description><exif:UserComment> <rdf:Alt>\n<rdf:li "
            'xml:lang="x-default">' + json.dumps(PROGRAMS["Draw Things"]).replace('"', "&quot;")
            + "</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></x:xmpmeta>"
        },
    ],
    ids=range(10),
)  # fmt: skip
def test_chunks_of_other_programs_are_found(chunks):
    check(read(png(**chunks)), PLAIN)


@pytest.mark.parametrize(
    "chunks", [{"Comment": "Created with GIMP"}, {"Title": "a cat"}, {"parameters": ""}, {"prompt": "a"}]
)
def test_other_chunks_say_nothing(chunks):
    assert read(png(**chunks)).params == {}


def test_a_comment_is_found_beside_a_chunk_that_says_nothing():
    info, block, out = PngInfo(), Image.Exif(), BytesIO()
    info.add_text("parameters", "None")
    block[ExifTags.Base.UserComment] = json.dumps(PROGRAMS["SwarmUI"])
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=info, exif=block.tobytes())
    with Image.open(out) as picture:
        check(read(files.text(picture)), PLAIN)


@pytest.mark.parametrize("xmp", ["<exif:UserComment " * 50_000, "<exif:UserComment> <rdf:li " * 35_000, "<" * 900_000])
def test_a_hostile_xmp_costs_little(xmp):
    begin = time.process_time()
    assert png(**{"XML:com.adobe.xmp": xmp}) == ""
    assert time.process_time() - begin < 2


def test_a_workflow_alone_is_told():
    assert "ComfyUI" in notes(read(png(workflow='{"nodes": [], "links": [], "version": 1}')))


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (ExifTags.Base.Model, "prompt:" + json.dumps(graph())),
        (ExifTags.Base.Make, "Prompt: " + json.dumps(graph())),
        (ExifTags.Base.ImageDescription, json.dumps(PROGRAMS["SwarmUI"])),
        (ExifTags.Base.UserComment, json.dumps(PROGRAMS["Fooocus"])),
        (ExifTags.Base.UserComment, json.dumps({"prompt": graph(), "workflow": {}})),
    ],
    ids=range(5),
)
@pytest.mark.parametrize("form", ["WEBP", "JPEG", "PNG"])
def test_tags_of_other_programs_are_found(form, tag, text):
    block = Image.Exif()
    block[tag] = text
    block[ExifTags.Base.Make] = block.get(ExifTags.Base.Make, "workflow:{}")
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, form, exif=block.tobytes())
    with Image.open(BytesIO(out.getvalue())) as picture:
        check(read(files.text(picture)), PLAIN)
