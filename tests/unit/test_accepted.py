"""The fields of parameters by their dotted names, and their page."""

from __future__ import annotations

import pytest

from shared.admission.accepted import accepted, bounds
from shared.params.groups import Hires, Noise, Refiner
from shared.params.img2img import Img2Img, Mask
from shared.params.render import RenderParams
from shared.params.scheduling import Scheduling
from shared.params.table import parameters
from shared.settings import Limits, Settings
from shared.wording import choices
from tools.parameter_docs import PAGE, page


def test_page_is_as_it_is_made_from_the_facts():
    text = PAGE.read_text()
    assert text == page(text, parameters(), parameters(Scheduling)), "docs/parameters.md is stale: make docs"


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
