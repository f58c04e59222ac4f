"""The rows of a sweep that is edited and rendered again: they make the same images, or are left to be typed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from api.pages import vary
from api.schemas.jobs import AxisBody
from shared.admission.axes.expand import Ground
from shared.admission.axes.plan import planned
from shared.admission.axes.request import split
from shared.admission.axes.wildcards import NO_WILDCARDS
from shared.params.job_spec import SPECIAL, JobSpec
from shared.params.render import RenderParams
from shared.prompts.styles import Style
from shared.settings import Limits

STYLES = {"Ink, dry": Style("Ink, dry", "ink drawing of {prompt}", "photo")}
BASE = {
    "prompt": "a red, big fox, blue  sun <lora:ink:1>",
    "negative_prompt": "fog",
    "hires": {},
    "img2img": {"picture": "a" * 64, "mask": {"picture": "b" * 64}},
    "controlnet": [{"model": "canny", "picture": "c" * 64}],
}


def plan(given):
    rest, request, problems = split(given)
    found = planned(request, Ground(RenderParams.model_validate(rest), Limits(), STYLES, NO_WILDCARDS))
    assert not (*problems, *found.problems)
    return found.plan


def again(base, *axes):
    """Return the plan of a sweep, the rows that it comes back with, and the plan that these make; None: not all told.

    An axis is a field, its values and what they are `of`.
    """
    sweep = {"axes": [dict(zip(("field", "values", "of"), axis, strict=False)) for axis in axes]}
    first = plan(base | {"sweep": sweep})
    images = {index: cell.params for index, cell in enumerate(first.cells)}
    spec = JobSpec(RenderParams.model_validate(base), first.described, read=images)
    job = SimpleNamespace(axes=[AxisBody.from_axis(axis) for axis in first.described], spec=spec, full_steps=None)
    rows = vary.of_job(job)
    return first, rows, None if vary.to_be_typed(job) else plan(base | vary.read(rows))


KEPT = [
    ("cfg_scale", "7, 15.5, 0.1"),
    ("seed", "-1, 5"),
    ("exact", "on, off"),
    ("tiling", "none, both, x"),
    ("noise.source", "CPU, NV"),
    ("emphasis", "None, Original"),
    ("img2img.mask.content", "latent noise, fill"),
    ("controlnet.0.preprocessor", "none, canny"),
    ("sampling.eta", "none, 0.5"),
    ("sampling.discard_next_to_last_sigma", "none, true, false"),
    ("sampler", "Euler a, DPM++ 2M Karras"),
    ("schedule", "automatic, karras"),
    ("hires.sampler", '"", Euler'),
    ("hires.schedule", '"", karras'),
    ("hires.checkpoint", '"", "one, two"'),
    ("checkpoint", '"", one'),
    ("vae", "none, automatic"),
    ("negative_prompt", '"", none, "a  b", "two, parts"'),
    ("hires.prompt", '"", a lake'),
    ("prompt", ["a\nb", 'say "x"']),
    ("prompt_replace", 'fox, "", owl'),
    ("prompt_order", "fox, sun"),
    ("styles", 'none, "Ink, dry"'),
    ("sampler_schedule", "Euler, DPM++ 2M / Karras"),
    ("size", "512x512, 512x768"),
    ("lora", "0, 0.5, -1", "ink"),
]


@pytest.mark.parametrize("axis", KEPT, ids=lambda axis: axis[0])
def test_the_rows_of_a_sweep_make_the_same_images_again(axis):
    first, _, second = again(BASE, axis)
    assert second is not None
    assert second.cells == first.cells


@pytest.mark.parametrize(
    "axis",
    [
        ("prompt_order", '"red, big", blue'),
        ("prompt_order", '" fox", "blue  sun"'),
        ("prompt_replace", '" fox", owl'),
        ("prompt_replace", 'fox, " owl"'),
        ("prompts", "a lake\na house --steps 9"),
        ("lora_name", "none, oil:0.2", "ink"),
        ("styles", f'none, "{"S" * 90}"'),
        ("checkpoint", "one [0123456789], one [9876543210]"),
    ],
    ids=str,
)
def test_values_that_titles_do_not_tell_are_left_to_be_typed(axis, monkeypatch):
    monkeypatch.setitem(STYLES, "S" * 90, Style("S" * 90, "long"))
    _, rows, second = again(BASE, axis)
    assert second is None
    assert (rows["sweep.axes.0.field"], rows["sweep.axes.0.values"]) == (axis[0], "")


def test_prompts_are_left_to_be_typed_beside_axes_that_change_them():
    axes = ("negative_prompt", 'fog, "fog, rain"'), ("prompt_replace", "fox, owl"), ("cfg_scale", "7, 9")
    _, rows, second = again(BASE, *axes)
    assert second is None
    assert [rows[f"sweep.axes.{row}.values"] for row in range(3)] == ["", "fox, owl", "7, 9"]


@pytest.mark.parametrize(("field", "prompt"), [("prompt_matrix", "a|b|c"), ("dynamic_prompts", "a {red|blue} fox")])
def test_what_takes_its_values_from_the_prompt_has_none_to_be_typed(field, prompt):
    first, _, second = again(BASE | {"prompt": prompt}, (field,))
    assert second is not None
    assert second.cells == first.cells


def test_every_kind_of_axis_is_tried():
    assert SPECIAL.keys() <= {axis[0] for axis in KEPT} | {"prompts", "lora_name", "prompt_matrix", "dynamic_prompts"}
