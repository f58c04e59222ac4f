"""The words on pages, as the functions that make them."""

from __future__ import annotations

import pytest

from api.pages.entry import inside
from api.pages.words import amount, counted, duration, marked


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (4.24, "4.2 s"), (59.4, "59 s"), (80, "1 min 20 s"), (7500, "2 h 5 min"), (93_600, "1 day 2 h")],
)
def test_duration_is_told_in_two_units_at_most(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (1536, "1.5 KB"), (200 * 2**20, "200 MB"), (2**42, "4.0 TB")]
)
def test_amount_is_told_in_a_unit_that_fits(size, words):
    assert amount(size) == words


def test_counted_speaks_of_one_and_of_many():
    assert [counted(number, "image") for number in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]


@pytest.mark.parametrize("address", ["/", "/jobs/17?page=2", "/?from=3"])
def test_inside_keeps_pages_of_the_farm(address):
    assert inside(address) == address


def test_marked_text_is_escaped_before_its_code_is_set_apart():
    assert marked("a `<b>` & <i>") == "a <code>&lt;b&gt;</code> &amp; &lt;i&gt;"
