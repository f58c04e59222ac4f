"""A job's axes: what each of its images changes, its place and its titles, and what rows hold of them."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from shared.jobs import stored
from shared.params.groups import Hires
from shared.params.img2img import Img2Img
from shared.params.job_spec import Axis, AxisValue, JobSpec, Sweep, changed
from shared.params.render import RenderParams

BASE = RenderParams(prompt="a lake", checkpoint="demo [abcdef0123]", width=64, height=64, seed=7, count=6)


def axis(field: str, *titles: str, of: str = "") -> Axis:
    return Axis(field=field, of=of, values=tuple(AxisValue(title=title) for title in titles))


AXES = (axis("sampler", "Euler a", "Heun"), axis("cfg_scale", "7", "15", "25.5"))
CHANGES = {
    3 * row + column: {"sampler": sampler, "cfg_scale": scale}
    for row, sampler in enumerate(["Euler a", "Heun"])
    for column, scale in enumerate([7, 15, 25.5])
}


def test_the_last_axis_varies_fastest():
    spec = JobSpec(BASE, AXES, CHANGES)
    assert [spec.cell(index) for index in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert spec.titles(4) == ("Heun", "15")


def test_an_image_of_a_sweep_has_its_own_values_and_the_seed_of_all():
    image = JobSpec(BASE, AXES, CHANGES).image(5)
    assert (image.sampler, image.cfg_scale, image.seed, image.count) == ("Heun", 25.5, 7, 1)
    assert image == BASE.model_copy(update={"sampler": "Heun", "cfg_scale": 25.5, "count": 1})


def test_a_job_without_axes_counts_its_seeds_up():
    spec = JobSpec(BASE)
    assert (spec.image(2), spec.cell(2), spec.titles(2)) == (BASE.image(2), (), ())


def test_changes_that_are_not_known_here_are_not_guessed():
    with pytest.raises(KeyError):
        JobSpec(BASE, AXES, {0: CHANGES[0]}).image(1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hires.scale": 1.5, "hires.steps": 3}, {"hires": Hires(scale=1.5, steps=3)}),
        ({"img2img": None}, {"img2img": None}),
        ({"img2img.denoising": 0.5}, {"img2img": Img2Img(picture="x", denoising=0.5)}),
        ({"styles": ["ink"], "cfg_scale": 3}, {"styles": ("ink",), "cfg_scale": 3.0}),
        ({"noise.variation_strength": 0.25}, {"noise": BASE.noise.model_copy(update={"variation_strength": 0.25})}),
    ],
)
def test_changes_reach_into_groups_and_make_them(changes, expected):
    base = BASE.model_copy(update={"img2img": Img2Img(picture="x")})
    assert changed(base, changes) == base.model_copy(update={"count": 1, **expected})


@pytest.mark.parametrize(
    "changes", [{"steps": "many"}, {"mood": "blue"}, {"cfg_scale.deep": 1}, {"ip_adapters.3.weight": 1}]
)
def test_changes_that_mean_nothing_are_refused(changes):
    with pytest.raises((ValidationError, ValueError)):
        changed(BASE, changes)


def test_an_axis_is_called_as_its_field_is():
    fields = ["cfg_scale", "hires.scale", "controlnet.0.weight", "prompt_replace", "dreams.of_tomorrow"]
    assert [axis(field, "1").label for field in fields] == [
        "CFG scale", "Scale", "Weight", "Words of the prompt", "Of tomorrow",
    ]  # fmt: skip


# Rows


ROW = json.loads(json.dumps(stored.written(BASE, Sweep(axes=AXES))))


def test_a_row_holds_the_axes_beside_the_parameters():
    assert stored.understood(ROW) == (BASE, {})
    spec, unknown = stored.spec(ROW, CHANGES)
    assert (spec.axes, spec.sweep, unknown) == (AXES, Sweep(axes=AXES), {})
    assert [spec.image(index) for index in CHANGES] == [JobSpec(BASE, AXES, CHANGES).image(index) for index in CHANGES]


def test_a_row_without_axes_is_what_it_always_was():
    row = stored.written(BASE)
    assert stored.SWEEP not in row
    assert stored.spec(row, {0: None, 1: None}) == (JobSpec(BASE), {})
    assert stored.image(row, 3, None) == (BASE.image(3), {})


def test_a_row_is_of_a_newer_version_to_one_that_knows_no_axes():
    with pytest.raises(ValidationError, match="sweep"):
        RenderParams.from_stored(ROW)


@pytest.mark.parametrize(
    ("row", "changes", "unknown"),
    [
        (ROW | {"sweep": {"axes": [], "seeds": "same"}}, {}, {"sweep"}),
        (ROW | {"sweep": ROW["sweep"] | {"mood": 1}}, {"steps": 3}, {"sweep"}),
        (ROW | {"sweep": 7}, None, {"sweep"}),
        (ROW, {"sampler": "Euler 5"}, {"sampler"}),
        (ROW, {"mood": "blue", "steps": 3}, {"mood"}),
        (ROW, {"hires.foo": 1}, {"hires.foo"}),
        (ROW, {"seed.deep": 1}, {"changes"}),
        (ROW, {"": 1}, {"changes"}),
        (ROW, [1], {"changes"}),
        (ROW, 7, {"changes"}),
        (ROW, {"prompt": "a <video:waves>"}, {"prompt"}),
    ],
)
def test_what_a_newer_version_changes_is_told_and_the_rest_is_read(row, changes, unknown):
    params, strange = stored.image(row, 1, changes)
    assert set(strange) == unknown
    assert params.width == 64
    spec, all_strange = stored.spec(row, {1: changes})
    assert spec.image(1) == params
    assert set(all_strange) == unknown
