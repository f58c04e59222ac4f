"""Rates and errors that estimates are made of, and their words."""

from __future__ import annotations

import pytest

from shared.queue.estimates import Rendered, error, off_by, rates, typical


def test_rate_counts_only_the_seconds_in_which_something_ran():
    rendered = [
        Rendered("one", 100, 0, 10),
        Rendered("one", 100, 5, 20),  # beside the first
        Rendered("one", 100, 6, 7),  # within it
        Rendered("one", 100, 1000, 1020),  # after a pause
        Rendered("two", 30, 0, 10),
    ]
    assert rates(rendered) == {"one": 400 / 40, "two": 3.0}


def test_rate_of_what_took_no_time_is_a_number():
    assert rates([Rendered("one", 100, 5, 5)])["one"] > 0


@pytest.mark.parametrize(
    ("told", "waited", "share"), [(10, 10, 0), (10, 5, 0.5), (5, 10, 0.5), (30, 20, 1 / 3), (0.5, 1.9, None), (3, 0, 1)]
)
def test_error_is_a_share_of_the_longer(told, waited, share):
    assert error(told, waited) == (None if share is None else pytest.approx(share))


def test_typical_error_is_the_median_of_enough():
    assert typical([0.1, 0.9]) is None
    assert typical([0.1, 0.9, 0.2]) == 0.2


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "hardly off"),
        (0.1, "off by a tenth"),
        (0.2, "off by a fifth"),
        (0.25, "off by a quarter"),
        (1 / 3, "off by a third"),
        (0.5, "off by a half"),
        (2 / 3, "off by two thirds"),
        (1.0, "off by more than two thirds"),
    ],
)
def test_error_in_words(share, words):
    assert off_by(share) == words
