"""The text that a picture carries, as other programs write and read it."""

from __future__ import annotations

import json
import re

import pytest

from shared.infotext import text
from shared.params import RenderParams

SHA256 = "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa"
# How the ecosystem's programs find the fields of the last line.
FIELD = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def params(**given) -> RenderParams:
    defaults = {"prompt": "a cat", "checkpoint": "v1-5 [6ce0161689]", "width": 512, "height": 768, "seed": 43}
    return RenderParams(**(defaults | given))


def write(given: RenderParams, name: str = "v1-5-pruned-emaonly") -> str:
    return text(given, checkpoint_name=name, checkpoint_sha256=SHA256, version="0.1.0")


def fields(infotext: str) -> dict[str, str]:
    found = FIELD.findall(infotext.splitlines()[-1])
    return {name: json.loads(value) if value.startswith('"') else value for name, value in found}


def test_it_reads_as_other_programs_write_it():
    assert write(params(negative_prompt="bad", sampler="DPM++ 2M")) == (
        "a cat\n"
        "Negative prompt: bad\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 43, Size: 512x768, "
        "Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, RNG: CPU, Version: stepfarm 0.1.0"
    )


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
        ("DPM++ 2M", "uniform", "Uniform"),
        ("DDIM", "automatic", "Automatic"),
    ],
)
def test_the_schedule_is_the_one_that_was_used(sampler, schedule, label):
    assert fields(write(params(sampler=sampler, schedule=schedule)))["Schedule type"] == label


@pytest.mark.parametrize(("scale", "written"), [(7.0, "7"), (7.5, "7.5"), (0, "0"), (1.123456789, "1.123456789")])
def test_the_scale_is_written_short_and_exact(scale, written):
    assert fields(write(params(cfg_scale=scale)))["CFG scale"] == written
    assert float(written) == scale


@pytest.mark.parametrize("name", ["plain", "a, b", "C: d", 'with "quotes"', '"quoted"', " padded ", "back\\slash, ü"])
def test_an_awkward_name_is_read_back(name):
    read = fields(write(params(), name))
    assert read["Model"] == name
    assert read["Model hash"] == SHA256[:10]
    assert read["Version"] == "stepfarm 0.1.0"
