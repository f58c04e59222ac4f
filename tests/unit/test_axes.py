"""The axes of a sweep: every notation as people type it, and what is refused before anything is made of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from time import process_time

import pytest

from shared.admission.axes import dynamic
from shared.admission.axes.expand import Ground
from shared.admission.axes.notation import BadValues, items
from shared.admission.axes.plan import planned
from shared.admission.axes.request import split
from shared.admission.axes.wildcards import NO_WILDCARDS, Wildcards
from shared.params import paths
from shared.params.render import RenderParams
from shared.prompts.styles import Style
from shared.settings import Limits

STYLES = {"Ink": Style("Ink", "ink drawing of {prompt}"), "Night": Style("Night", "at night")}


def plan(given, wildcards=NO_WILDCARDS, **limits):
    """Return what becomes of a request: its plan, and field -> (message, accepted) of what is wrong."""
    rest, sweep, problems = split(given)
    if sweep is None:
        return None, {one.field: (one.message, one.accepted) for one in problems}
    ground = Ground(RenderParams.model_validate(rest), Limits(**limits), STYLES, wildcards)
    found = planned(sweep, ground)
    return found.plan, {one.field: (one.message, one.accepted) for one in found.problems}


def cells(given, *names, **options):
    """Return (titles, values of these parameters) of each image of a request."""
    found, problems = plan(given, **options)
    assert not problems
    return [(*found.titles(cell), *(paths.get(cell.params, name) for name in names)) for cell in found.cells]


def axis(field, values=(), **others):
    return {"axes": [{"field": field, "values": values, **others}]}


@pytest.mark.parametrize(
    ("field", "text", "values"),
    [
        ("cfg_scale", "7, 15, 20, 25.5", [7, 15, 20, 25.5]),
        ("cfg_scale", "7-25.5[4]", [7, 13.1667, 19.3333, 25.5]),
        ("cfg_scale", "0.1-0.4(0.1)", [0.1, 0.2, 0.3, 0.4]),
        ("cfg_scale", "1-3", [1, 2, 3]),
        ("steps", "1-5", [1, 2, 3, 4, 5]),
        ("steps", "1-10(+2)", [1, 3, 5, 7, 9]),
        ("steps", "10-1(-3)", [10, 7, 4, 1]),
        ("steps", "5-3", [5, 4, 3]),
        ("steps", "1-10[5]", [1, 3, 6, 8, 10]),
        ("steps", "7-9[1]", [7]),
        ("steps", "20, 30-40(+5)\n50", [20, 30, 35, 40, 50]),
        ("steps", [20, "30-32", 40], [20, 30, 31, 32, 40]),
        ("width", "512-1024[3]", [512, 768, 1024]),
        ("noise.eta_seed_delta", "-5--3, -1-1, -7", [-5, -4, -3, -1, 0, 1, -7]),
        ("seed", "18446744073709551614-18446744073709551615", [2**64 - 2, 2**64 - 1]),
        ("sampling.eta", ["0.5", None], [0.5, None]),
        ("sampler", 'Euler a, "LMS" , k_heun', ["Euler a", "LMS", "Heun"]),
        ("sampler", ["Euler a", "LMS"], ["Euler a", "LMS"]),
        ("checkpoint", 'one, "two, three", "say ""x"""', ["one", "two, three", 'say "x"']),
        ("tiling", "none, BOTH", ["none", "both"]),
        ("tiling", "None, left and right", ["none", "x"]),
        ("noise.source", "CPU, NV: as a CUDA card's", ["CPU", "NV"]),
        ("sampling.discard_next_to_last_sigma", "leave it out, off, the sampler's own way", [True, False, None]),
        ("exact", "true, off", [True, False]),
        ("prompt", '"a, b", c', ["a, b", "c"]),
        ("CFG scale", "7", [7]),
        ("--cfg", "7", [7]),
        ("clip-skip", "1,2", [1, 2]),
    ],
)
def test_values_are_read_as_people_type_them(field, text, values):
    path = {"CFG scale": "cfg_scale", "--cfg": "cfg_scale", "clip-skip": "clip_skip"}.get(field, field)
    assert [one[-1] for one in cells({"sweep": axis(field, text)}, path)] == values


def test_fields_of_groups_vary_where_the_job_has_the_group():
    base = {"hires": {}, "refiner": {"checkpoint": "x"}, "controlnet": [{"model": "canny", "picture": "p"}]}
    for field in ("hires.denoising", "hires.scale", "refiner.switch_at", "controlnet.0.weight", "controlnet.0.end"):
        values = "1, 2" if field == "hires.scale" else "0.25, 0.5"
        assert [one[1] for one in cells(base | {"sweep": axis(field, values)}, field)] == list(
            map(float, values.split(","))
        )


def test_the_dearest_axis_varies_slowest_and_the_last_one_fastest():
    given = {
        "sweep": {
            "axes": [
                {"field": "cfg_scale", "values": "7,9"},
                {"field": "steps", "values": "1,2"},
                {"field": "checkpoint", "values": "a,b"},
            ]
        }
    }
    found = cells(given, "checkpoint", "cfg_scale", "steps")
    assert [one[3:] for one in found[:3]] == [("a", 7, 1), ("a", 7, 2), ("a", 9, 1)]
    assert len(found) == 8


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"prompt": "sun, sun", "negative_prompt": "no sun", "sweep": axis("prompt_replace", 'sun, moon, ""')},
            [("sun", "sun, sun", "no sun"), ("moon", "moon, moon", "no moon"), ("without: sun", ", ", "no ")],
        ),
        (
            {"prompt": "a b", "sweep": axis("prompt_order", "a, b")},
            [("a, b", "a b", ""), ("b, a", "b a", "")],
        ),
        (
            {"prompt": "desert [x|y]|sun|fog", "sweep": axis("prompt_matrix")},
            [
                ("without: sun, fog", "desert [x|y]", ""),
                ("sun", "desert [x|y], sun", ""),
                ("fog", "desert [x|y], fog", ""),
                ("sun, fog", "desert [x|y], sun, fog", ""),
            ],
        ),
        (
            {"prompt": "lake", "sweep": axis("styles", "none, Ink, Night")},
            [("none", "lake", ""), ("Ink", "ink drawing of lake", ""), ("Night", "lake, at night", "")],
        ),
        (
            {"prompt": "lake <lora:ink:1>", "sweep": axis("lora", "0, 0.5-1[2]", of="ink")},
            [("ink 0", "lake", ""), ("ink 0.5", "lake <lora:ink:0.5>", ""), ("ink 1", "lake <lora:ink:1>", "")],
        ),
        (
            {"prompt": "lake <lora:ink:0.7>", "sweep": axis("lora_name", "none, wash, oil:0.2", of="ink")},
            [("none", "lake", ""), ("wash", "lake <lora:wash:0.7>", ""), ("oil", "lake <lora:oil:0.2>", "")],
        ),
        (
            {"prompt": "{red|blue {car|house}} x", "sweep": axis("dynamic_prompts")},
            [("red", "red x", ""), ("blue car", "blue car x", ""), ("blue house", "blue house x", "")],
        ),
        (
            {"sweep": axis("prompts", "a cat's eye\n# remark\nfog --negative 'sun, x'")},
            [("a cat's eye", "a cat's eye", ""), ("fog", "fog", "sun, x")],
        ),
    ],
)
def test_axes_of_the_prompt(given, expected):
    assert [tuple(map(str.strip, one)) for one in cells(given, "prompt", "negative_prompt")] == [
        tuple(map(str.strip, one)) for one in expected
    ]


def test_lines_of_prompts_have_options_as_the_command_line_has_them():
    lines = "a --steps 30 --cfg=9 --size 512x768\nb --sampler 'DPM++ 2M Karras' --seed 5 --lora ink:0.5 --exact"
    names = ("prompt", "steps", "cfg_scale", "width", "height", "sampler", "schedule", "seed", "exact")
    assert [one[1:] for one in cells({"steps": 10, "sweep": axis("prompts", lines)}, *names)] == [
        ("a", 30, 9, 512, 768, "Euler a", "automatic", -1, False),
        ("b <lora:ink:0.5>", 10, 7, 0, 0, "DPM++ 2M", "karras", 5, True),
    ]


def test_samplers_with_schedules_and_sizes():
    both = {"axes": [{"field": "sampler_schedule", "values": "DPM++ 2M / Karras, Euler, dpmpp_2m_karras"}]}
    assert [one[1:] for one in cells({"sweep": both}, "sampler", "schedule")] == [
        ("DPM++ 2M", "karras"),
        ("Euler", "automatic"),
        ("DPM++ 2M", "karras"),
    ]
    assert cells({"sweep": axis("size", "512x768, 64×64")}, "width", "height")[0] == ("512 × 768", 512, 768)


def test_axes_of_prompts_work_on_each_other():
    given = {
        "prompt": "a {red|blue} house",
        "sweep": {
            "axes": [
                {"field": "styles", "values": "none, Night"},
                {"field": "prompt_replace", "values": "red, green"},
                {"field": "dynamic_prompts"},
            ]
        },
    }
    prompts = [one[-1] for one in cells(given, "prompt")]
    assert prompts[0] == "a red house"
    assert "a green house, at night" in prompts


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("{2$$a|b|c}", ["a, b", "a, c", "b, c"]),
        ("{1-2$$ and $$a|b}", ["a", "b", "a and b"]),
        ("{3::a|b} c", ["a c", "b c"]),
        (r"\{a\|b\}", ["{a|b}"]),
        ("{a|}{|b}", ["a", "ab", "", "b"]),
        ("[a|b] {c|d}", ["[a|b] c", "[a|b] d"]),
    ],
)
def test_choices_in_prompts(prompt, texts):
    template = dynamic.read(prompt, NO_WILDCARDS)
    assert (template.count, [*template.texts()]) == (len(texts), texts)


def test_texts_that_are_drawn_are_different_and_follow_weights():
    template = dynamic.read("{a|b|c|d} {1|2|3|4}", NO_WILDCARDS)
    drawn = [one.text for one in dynamic.several(template, 6, Random(1))]
    assert len({*drawn}) == 6
    assert {*drawn} <= {*template.texts()}
    heavy = dynamic.read("{0::a|1::b|0::c}", NO_WILDCARDS)
    assert {one.text for one in dynamic.several(heavy, 2, Random(1))} == {"b"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "wildcards"
    (made / "colours").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("key")
    (made / "colour.txt").write_text("# remark\n\nred\n__colours/warm__\n", encoding="utf-8-sig")
    (made / "colours" / "warm.txt").write_text("orange\n{pale|dark} pink\n")
    (made / "a.txt").write_text("x\n__b__\n")
    (made / "b.txt").write_text("__a__\n")
    (made / "empty.txt").write_text("# nothing\n")
    (made / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (made / "out.txt").symlink_to(tmp_path / "secret.txt")
    (made / "alias.txt").symlink_to(made / "colour.txt")
    os.mkfifo(made / "pipe.txt")
    return made


def test_wildcards_are_lines_of_files_and_may_name_others(folder):
    wildcards = Wildcards.of(folder)
    assert [*dynamic.read("a __colour__", wildcards).texts()] == ["a red", "a orange", "a pale pink", "a dark pink"]
    assert dynamic.read("__alias__", wildcards).count == 4
    assert dynamic.read("__animal__", wildcards).count == 12  # an example that ships with the farm


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("__a__", "includes itself: __a__ → __b__ → __a__"),
        ("__../secret__", "not the name of a file"),
        ("__colours/../../secret__", "not the name of a file"),
        ("__/etc/passwd__", "not the name of a file"),
        ("__./colour__", "not the name of a file"),
        ("__out__", "is not there"),
        ("__color__", "is not there"),
        ("__empty__", "has 0 texts"),
        ("__binary__", "is not UTF-8"),
    ],
)
def test_wildcards_outside_of_the_folder_and_such_that_hold_no_texts_are_refused(folder, prompt, message):
    with pytest.raises(BadValues, match=message):
        dynamic.read(prompt, Wildcards.of(folder))


def test_a_wildcard_that_is_not_there_is_answered_with_the_nearest(folder):
    with pytest.raises(BadValues) as caught:
        dynamic.read("__color__", Wildcards.of(folder))
    assert "__colour__" in caught.value.accepted


THREE = [{"field": name, "values": "1-200"} for name in ("steps", "seed", "cfg_scale")]
HOSTILE = [
    # The object itself.
    (5, "sweep"),
    ([], "sweep"),
    ({}, "sweep.axes"),
    ({"axes": []}, "sweep.axes"),
    ({"axes": [{"field": "steps", "values": "1"}] * 4}, "sweep.axes"),
    ({"axes": [{"values": "1"}]}, "sweep.axes.0.field"),
    ({"axes": [{"field": 5}]}, "sweep.axes.0.field"),
    ({"axes": ["steps"]}, "sweep.axes.0"),
    ({**axis("steps", "1"), "seeds": "some"}, "sweep.seeds"),
    ({**axis("steps", "1"), "draft": {"every": 1}}, "sweep.draft.every"),
    ({**axis("steps", "1"), "draft": {"every": 10**30}}, "sweep.draft.every"),
    ({**axis("steps", "1"), "more": 1}, "sweep.more"),
    (axis("steps", {"a": 1}), "sweep.axes.0.values"),
    (axis("steps", [[1]]), "sweep.axes.0.values"),
    (axis("steps", 5), "sweep.axes.0.values"),
    (axis("prompt", "a\x00b"), "sweep.axes.0.values"),
    (axis("prompt", "\ud800"), "sweep.axes.0.values"),
    (axis("prompt", ["\udfff"]), "sweep.axes.0.values"),
    (axis("st\x00eps", "1"), "sweep.axes.0.field"),
    (axis("x" * 10**6, "1"), "sweep.axes.0.field"),
    # Too many.
    ({"axes": THREE}, "sweep.axes"),
    (axis("steps", "1-1000000000"), "sweep.axes.0.values"),
    (axis("seed", "1-18446744073709551615"), "sweep.axes.0.values"),
    (axis("cfg_scale", "0-1(0.000000000001)"), "sweep.axes.0.values"),
    (axis("steps", "1-5[999999999]"), "sweep.axes.0.values"),
    (axis("steps", "1," * 10**5), "sweep.axes.0.values"),
    (axis("steps", [1] * 201), "sweep.axes.0.values"),
    (axis("prompt_matrix"), "sweep.axes.0.values", "a" + "|b" * 9),
    (axis("prompt_matrix"), "sweep.axes.0.values", "a" + "|b" * 5000),
    (axis("prompt_order", "a,b,c,d,e,f"), "sweep.axes.0.values", "a b c d e f"),
    (axis("prompt_order", ",".join(f"w{at}" for at in range(200))), "sweep.axes.0.values", "w1"),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "{a|b|c}" * 40),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "{a|b}" * 1900),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "__colour__ " * 40),
    (axis("dynamic_prompts", of="random", count=10**9), "sweep.axes.0.count"),
    (axis("prompts", "x\n" * 10**5), "sweep.axes.0.values"),
    # Numbers.
    *((axis("cfg_scale", text), "sweep.axes.0.values") for text in ("nan", "1e999", "inf", "-", "1-", "1-2-3", "٣")),
    *((axis("steps", text), "sweep.axes.0.values") for text in ("1-2(0)", "1-5[0]", "1-5(-1)", "5-1(+1)", "7.5", "")),
    (axis("steps", "1-3[10]"), "sweep.axes.0.values"),
    (axis("steps", "9" * 10**5), "sweep.axes.0.values.0"),
    (axis("steps", "9" * 10**3), "sweep.axes.0.values"),
    (axis("steps", [7.5]), "sweep.axes.0.values.0"),
    (axis("steps", [True]), "sweep.axes.0.values.0"),
    (axis("steps", ["3", -1]), "sweep.axes.0.values.1"),
    (axis("seed", "-2"), "sweep.axes.0.values.0"),
    (axis("width", "500"), "sweep.axes.0.values.0"),
    (axis("size", "512"), "sweep.axes.0.values.0"),
    (axis("size", "512x500"), "sweep.axes.0.values.0"),
    # Texts.
    (axis("prompt_replace", "x" * 10**6 + ",y"), "sweep.axes.0.values.0", "x"),
    (axis("prompt_replace", ["a", "b" * 9999]), "sweep.axes.0.values.1", "a" * 5000),
    ({"axes": [axis("prompt_replace", ["a", "a" * 9999])["axes"][0]] * 3}, "sweep.axes", "a"),
    (axis("prompt_replace", "sea,b"), "sweep.axes.0.values.0", "a lake"),
    (axis("prompt_replace", "(a+)+$,b"), "sweep.axes.0.values.0", "a" * 5000 + "!"),
    (axis("prompt_replace", "lake"), "sweep.axes.0.values", "a lake"),
    (axis("prompt_order", "a"), "sweep.axes.0.values", "a"),
    (axis("prompt", '"a'), "sweep.axes.0.values"),
    (axis("prompt", '"a" b'), "sweep.axes.0.values"),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "{" * 9999),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "{" * 30 + "}" * 30),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "a } b"),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "{9$$a|b}"),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "plain"),
    (axis("dynamic_prompts"), "sweep.axes.0.values", "__../../etc/passwd__"),
    (axis("dynamic_prompts", of="some"), "sweep.axes.0.values", "{a|b}"),
    (axis("dynamic_prompts", "a"), "sweep.axes.0.values", "{a|b}"),
    (axis("prompts", "a --stepps 3"), "sweep.axes.0.values.0"),
    (axis("prompts", "a --steps"), "sweep.axes.0.values.0"),
    (axis("prompts", "a --steps 1-5"), "sweep.axes.0.values.0"),
    (axis("prompts", "a --negative 'x"), "sweep.axes.0.values.0"),
    (axis("prompts", "a --hires 2"), "sweep.axes.0.values.0"),
    (axis("prompts", f"a --negative {'x' * 3000}"), "sweep.axes.0.values.0"),
    (axis("styles", "Inc"), "sweep.axes.0.values.0"),
    (axis("lora", "1"), "sweep.axes.0.values"),
    (axis("lora", "11", of="ink"), "sweep.axes.0.values.0"),
    (axis("lora", "1", of="a>b"), "sweep.axes.0.values.0"),
    (axis("lora_name", "a:b:c:d:e"), "sweep.axes.0.values.0"),
    # Fields.
    *((axis(field, "1"), "sweep.axes.0.field") for field in ("stpes", "count", "format", "film", "hires", "img2img")),
    *((axis(field, "1"), "sweep.axes.0.field") for field in ("hires.scale", "img2img.picture", "upscale.scale")),
    *((axis(field, "1"), "sweep.axes.0.field") for field in ("controlnet.weight", "controlnet.0.weight", "__class__")),
    ({"axes": [{"field": "steps", "values": "1"}] * 2}, "sweep.axes.1.field"),
    ({"axes": [{"field": "size", "values": "64x64"}, {"field": "width", "values": "64"}]}, "sweep.axes.1.field"),
    ({"axes": [{"field": "dynamic_prompts"}, {"field": "prompts", "values": "a"}]}, "sweep.axes.1.field"),
    ({**axis("seed", "1,2"), "seeds": "each"}, "sweep.seeds"),
]  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: json.dumps(case[0])[:60])
def test_a_hostile_sweep_is_refused_at_once(case):
    sweep, field, *prompt = case
    began = process_time()
    found, problems = plan({"prompt": prompt[0] if prompt else "a lake", "sweep": sweep})
    assert process_time() - began < 0.5
    assert found is None or not found.cells
    assert field in problems
    message, accepted = problems[field]
    assert message
    assert accepted
    assert len(message) + len(accepted) < 1000


def test_a_sweep_has_at_most_as_many_images_as_a_job():
    given = {"sweep": {"axes": [{"field": "steps", "values": "1-10"}, {"field": "seed", "values": "1-11"}]}}
    assert plan(given, max_count=100)[1] == {"sweep.axes": ("make 10 × 11 = 110 images", "at most 100 images")}
    assert len(plan(given, max_count=110)[0].cells) == 110


def test_what_no_sweep_can_have_is_refused():
    assert "count" in plan({"count": 2, "sweep": axis("steps", "1,2")})[1]
    found, problems = plan({"negative_prompt": "x" * 10**6, "sweep": axis("steps", "1,2")})
    assert "negative_prompt" in problems
    assert not found.cells, "a text that is refused anyway is not copied into every image"


def test_a_bad_prompt_is_named_by_its_value_and_others_by_their_field_with_titles():
    given = {"prompt": "x", "sweep": axis("prompt", ["fine", "long " * 1300])}
    (field,) = plan(given)[1]
    assert field == "sweep.axes.0.values.1"
    two = {"axes": [{"field": "sampler", "values": "DDIM,Euler"}, {"field": "schedule", "values": "karras"}]}
    found = plan({"sweep": two})[1]
    assert found["sweep.axes.1.values.0"][0] == "DDIM cannot use the schedule karras (at DDIM / Karras)"


def test_quotes_are_read_in_linear_time():
    began = process_time()
    assert len(items('"' + '""' * 10**5 + '"')) == 1
    assert process_time() - began < 1
