"""What OpenAI's clients ask for, as jobs."""

from __future__ import annotations

import pytest

from api.compat.openai.request import STEPS, generation


def job(**given):
    return generation({"prompt": "a lake"} | given).job


def test_a_prompt_alone_leaves_the_rest_to_the_farm():
    assert job() == {"prompt": "a lake"}
    assert job(size="auto", quality="auto", background="auto", user="ann", n=None) == {"prompt": "a lake"}


@pytest.mark.parametrize(("quality", "steps"), [*STEPS.items(), ("standard", 20), ("hd", 30)])
def test_quality_is_a_number_of_steps(quality, steps):
    assert job(quality=quality)["steps"] == steps
    assert job(quality=quality, steps=7)["steps"] == 7


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"n": 3, "size": "512x768"}, {"count": 3, "width": 512, "height": 768}),
        ({"num_inference_steps": 9, "guidance_scale": 0}, {"steps": 9, "cfg_scale": 0}),
        ({"output_format": "jpeg", "seed": 0}, {"format": "jpeg", "seed": 0}),
        ({"loras": {"ink": 0.8, "sea": 1}}, {"prompt": "a lake <lora:ink:0.8> <lora:sea:1>"}),
        ({"loras": ["ink", {"name": "sea", "weight": -0.5}]}, {"prompt": "a lake <lora:ink:1> <lora:sea:-0.5>"}),
        ({"hires": {"scale": 2}, "urgent": True}, {"hires": {"scale": 2}, "urgent": True}),
    ],
)
def test_names_and_values_are_translated(given, expected):
    assert job(**given) == {"prompt": "a lake"} | expected


@pytest.mark.parametrize(
    ("given", "quality"), [({}, "medium"), ({"quality": "hd"}, "high"), ({"quality": "low", "steps": 3}, None)]
)
def test_the_answer_tells_the_quality_unless_the_steps_were_given(given, quality):
    assert generation({"prompt": "a lake"} | given).quality == quality
