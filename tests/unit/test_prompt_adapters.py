"""Tags that ask for adapters, and weights that change on the way."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.prompts.adapters import BadTag, Use, Weight, used

FULL = Weight(((0.0, 1.0),))


def constant(weight: float) -> Weight:
    return Weight(((0.0, weight),))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:ink>", Use("lora", "ink", FULL, FULL)),
        ("<lora:ink:0.8>", Use("lora", "ink", constant(0.8), constant(0.8))),
        ("<LORA: ink :-.5>", Use("lora", "ink", constant(-0.5), constant(-0.5))),
        ("<lyco:ink:1:0>", Use("lora", "ink", FULL, constant(0))),
        ("<lora:ink:0.5:0.25:8>", Use("lora", "ink", constant(0.5), constant(0.25), 8)),
        ("<lora:ink:te=0>", Use("lora", "ink", constant(0), constant(0))),
        ("<lora:ink:unet=0.5:dyn=4>", Use("lora", "ink", FULL, constant(0.5), 4)),
        ("<lora:style/ink v2:0.8>", Use("lora", "style/ink v2", constant(0.8), constant(0.8))),
        ("<lora:ink:0@0,1@0.5>", Use("lora", "ink", Weight(((0, 0), (0.5, 1))), Weight(((0, 0), (0.5, 1))))),
        ("<lora:ink:te=1:unet=0@0,1@10>", Use("lora", "ink", FULL, Weight(((0, 0), (10, 1))))),
        ("<hypernet:haze>", Use("hypernet", "haze", FULL, FULL)),
        ("<hypernet:haze:0.6>", Use("hypernet", "haze", FULL, constant(0.6))),
    ],
)
def test_a_tag_names_an_adapter_and_its_weights(tag: str, expected: Use) -> None:
    assert used(f"a boat, {tag} at sea") == (expected,)


def test_tags_are_read_in_their_order_and_by_the_key_of_a_model_set() -> None:
    assert [use.key for use in used("<lora:b> sea <hypernet:a> (<lora:a:0.1>:1.2)")] == [
        "lora:b",
        "hypernet:a",
        "lora:a",
    ]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("<lora:ink:strong>", "'strong' is not a number"),
        ("<lora:ink:nan>", "'nan' is not a number"),
        ("<lora:ink:1e9>", "from -10 to 10"),
        ("<lora:ink:0.5:0.5:0>", "dyn is a whole number"),
        ("<lora:ink:1:1:1:1>", "cannot be read"),
        ("<lora:ink:clip=1>", "cannot be read"),
        ("<lora: :1>", "cannot be read"),
        ("<lora:ink:1@0.5,0@0.2>", "must rise"),
        ("<lora:ink:1@-1>", "a place is a share"),
        ("<lora:ink:" + "1@2," * 70 + "1@3>", "at most 64"),
        ("<hypernet:haze:1:1>", "cannot be read"),
        ("<wildcard:animal>", "means nothing here"),
    ],
    ids=lambda value: value[:12],
)
def test_a_tag_that_cannot_be_read_says_why_and_what_would_be_right(tag: str, reason: str) -> None:
    with pytest.raises(BadTag, match=reason) as refused:
        used(f"a boat {tag}")
    assert refused.value.accepted


def test_a_weight_changes_evenly_between_its_points_and_stays_outside_of_them() -> None:
    weight = Weight(((0.25, 0.0), (0.75, 1.0)))
    assert [weight.at(share, steps=20) for share in (0, 0.25, 0.5, 0.75, 1)] == [0, 0, 0.5, 1, 1]
    assert weight.start == 0


def test_a_place_above_1_is_a_step() -> None:
    weight = Weight(((0.0, 0.0), (10.0, 1.0)))
    assert weight.at(0.25, steps=20) == 0.5
    assert weight.at(0.5, steps=20) == 1
    assert weight.at(0.9, steps=5) == 0.45


@given(st.text(alphabet="<lora:ink hypernet=te@0.,1->", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BadTag):
        used(text)
