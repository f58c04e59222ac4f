"""Details of model files, as the catalogue holds them, whatever the author of a file wrote there."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.models.details import MOST_WORDS, Details, recorded

TEXTS = st.text(st.sampled_from("a\u00e9 \n\x00\x1b\ud800\u200b"), max_size=5)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(TEXTS, PLAIN | st.lists(PLAIN, max_size=2), max_size=3)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"alias": "wa\x00ter\ncolour \ud800"}, {"alias": "wa ter colour"}),
        ({"alias": "x" * 9999}, {"alias": "x" * 120}),
        ({"alias": "\u200b", "rank": math.nan, "scale": 10**30, "vectors": {}}, {}),
        ({"trigger_words": ["ink", "", "ink", "wash\x1b[2J"]}, {"trigger_words": ["ink", "wash [2J"]}),
        ({"vectors": {"text_encoder": 4}, "rank": 8, "form": "rows"}, None),
        ({"deep": {"er": {"and": {"deeper": 1}}}}, {"deep": {"er": {"and": None}}}),
    ],
)
def test_what_is_recorded_is_bounded_and_printable(given: dict[str, Any], kept: dict[str, Any] | None) -> None:
    assert recorded(given) == (given if kept is None else kept)


def test_at_most_so_many_words_are_recorded() -> None:
    assert len(recorded({"trigger_words": [f"word {number}" for number in range(1000)]})["trigger_words"]) == MOST_WORDS


@given(st.dictionaries(st.sampled_from([*Details.model_fields, "more"]), JSON, max_size=4))
def test_anything_can_be_recorded_and_read(given: dict[str, Any]) -> None:
    text = json.dumps(recorded(given), allow_nan=False, ensure_ascii=False)
    text.encode()
    Details.read(json.loads(text))


def test_values_of_another_version_are_left_out_one_by_one() -> None:
    stored = {"rank": "many", "form": "by columns", "alias": "Ink", "vectors": {"text_encoder": 0}, "new": 1}
    assert Details.read(stored) == Details(alias="Ink")
    assert Details.read(None) == Details.read([1]) == Details()


@pytest.mark.parametrize(
    ("alias", "words"), [("Ink", "LoRA, rank 8; wash"), ("pen", "LoRA, rank 8, also called pen; wash")]
)
def test_another_name_is_told_only_if_it_is_another(alias: str, words: str) -> None:
    details = Details(algorithm="LoRA", rank=8, alias=alias, trigger_words=("wash",))
    assert details.words("ink") == words
