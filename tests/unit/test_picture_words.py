"""By which words pictures are found."""

from __future__ import annotations

import time

import pytest

from shared.accounts.scope import EVERYBODYS
from shared.pictures import queries, words
from shared.pictures.filters import Filter


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("A red Sailboat, at (sea:1.3)!", ["a", "red", "sailboat", "at", "sea"]),
        ("red_boat <lora:ink:0.8> [dawn|dusk]", ["red", "boat", "dawn", "dusk"]),
        ("ＢＯＡＴ\u3000Straße", ["boat", "strasse"]),  # wide letters, and a letter that is folded into two
        ("日落", ["日", "落", "日落"]),
        ("海边的boats日落", ["海", "边", "的", "海边", "边的", "boat", "日", "落", "日落"]),
        ("glass grass gas", ["glass", "grass", "gas"]),
        ("", []),
    ],
)
def test_words_of_a_prompt(prompt, found):
    assert words.of_prompt(prompt) == found


@pytest.mark.parametrize(
    ("search", "prompt"),
    [
        ("boat", "two boats"),
        ("BOATS, two", "two boats"),
        ("落", "日落"),
        ("海边", "在海边的房子"),
        ("海边的", "在海边的房子"),
        ("夕阳 boat", "a boat, 夕阳"),
    ],
)
def test_a_search_finds(search, prompt):
    assert {*words.of_search(search)} <= {*words.of_prompt(prompt)}


@pytest.mark.parametrize(("search", "prompt"), [("边海", "海边"), ("boa", "boat"), ("1.3", "(sea:1.3)")])
def test_a_search_does_not_find(search, prompt):
    assert not {*words.of_search(search)} <= {*words.of_prompt(prompt)}


def test_a_search_for_several_characters_asks_for_them_side_by_side():
    assert words.of_search("海边房") == ["海边", "边房"]


@pytest.mark.parametrize(("search", "is_merged"), [("", True), ("!?", True), ("sea", False)])
def test_a_search_that_holds_no_word_walks_as_none_does(search, is_merged):
    assert queries._is_merged(EVERYBODYS, Filter(words=search)) is is_merged


@pytest.mark.parametrize("text", ["海边" * 50_000, "a" * 100_000, "<" * 100_000, "(a:1" * 25_000, "é " * 50_000])
def test_hostile_texts_take_bounded_room_and_time(text):
    start = time.process_time()
    found = words.of_prompt(text), words.of_search(text)
    assert time.process_time() - start < 1
    assert len(found[0]) <= words.MOST_OF_A_PROMPT
    assert len(found[1]) <= words.MOST_OF_A_SEARCH
    assert max(map(len, found[0]), default=0) <= 40
