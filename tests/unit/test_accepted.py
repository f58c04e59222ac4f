"""The fields of parameters by their dotted names, and the page that tells of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shared.admission.accepted import accepted, bounds, parameters
from shared.params.render import Hires, Img2Img, Mask, Noise, Refiner, RenderParams
from shared.settings import Limits, Settings
from shared.wording import choices

PAGE = Path(__file__).parents[2] / "docs" / "parameters.md"
NAMED_ELSEWHERE = {"sampler": "[a sampler](samplers.md)", "schedule": "[a schedule](samplers.md)"}


def row(name: str) -> str:
    """The line of a parameter in docs/parameters.md."""
    parameter = parameters()[name]
    default = f"`{json.dumps(parameter.default)}`"
    if parameter.is_required:
        default = "required"
    elif parameter.is_group:
        default = "`null`" if parameter.is_optional else ""
    takes = NAMED_ELSEWHERE.get(name.rpartition(".")[2], accepted(name, Limits()))
    return f"| `{name}` | {default} | {'see below' if parameter.is_group else takes} | {parameter.description} |"


@pytest.mark.parametrize("name", parameters())
def test_parameter_is_documented_as_it_is(name):
    assert row(name) in PAGE.read_text().splitlines()


def test_no_other_parameter_is_documented():
    documented = re.findall(r"^\| `([a-z_0-9.]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(parameters())


def test_every_field_of_every_group_is_there():
    groups = {"noise": Noise, "refiner": Refiner, "hires": Hires, "img2img": Img2Img, "img2img.mask": Mask}
    for group, model in groups.items():
        assert {f"{group}.{name}" for name in model.model_fields} <= parameters().keys()
    assert {name for name in parameters() if "." not in name} == RenderParams.model_fields.keys()


def test_limits_bound_fields_that_there_are_and_stand_in_the_words():
    limits = Limits(max_size=777, max_steps=33, max_cfg_scale=11.5, max_count=5)
    assert bounds(limits).keys() <= parameters().keys()
    for name, most in {"hires.width": "777", "hires.steps": "33", "cfg_scale": "11.5", "count": "5"}.items():
        assert most in accepted(name, limits)


def test_limits_are_settings():
    assert Settings(max_upload_mb=3, max_upload_megapixels=2).limits.max_upload_bytes == 3 * 2**20
    assert Settings(max_upload_megapixels=2).limits.max_upload_pixels == 2_000_000


@pytest.mark.parametrize(("names", "told"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")])
def test_choices_are_told_as_a_sentence_does(names, told):
    assert choices(names) == told


def test_unknown_name_is_told_where_to_look():
    assert accepted("nonsense", Limits()) == "what the description of the API lists"
