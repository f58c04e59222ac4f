"""Numbers, times and sizes in words."""

from __future__ import annotations

import pytest

from shared.quantities import age, counted, data_size, duration, estimate


def test_one_is_counted_in_the_singular():
    assert [counted(number, "image") for number in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KB"),
        (1536, "1.5 KB"),
        (99.96 * 1024, "100 KB"),
        (2**20 - 1, "1.0 MB"),
        (200 * 2**20, "200 MB"),
        (24 * 2**30, "24.0 GB"),
        (2**42, "4.0 TB"),
        (2**70, "1,048,576 PB"),
    ],
)
def test_size_has_the_unit_that_fits(size, words):
    assert data_size(size) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (0, "0.0 s"),
        (4.24, "4.2 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (80, "1 min 20 s"),
        (7500, "2 h 5 min"),
        (93_600, "1 day 2 h"),
        (200_000, "2 days 7 h"),
    ],
)
def test_duration_has_two_units_at_most(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-2, "0 s"), (0, "0 s"), (40, "40 s"), (720, "12 min"), (3 * 3600, "3 h"), (5 * 86400, "5 d")],
)
def test_age_has_one_unit(seconds, words):
    assert age(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a moment"),
        (4.4, "about 4 s"),
        (22, "about 20 s"),
        (57, "about 55 s"),
        (58, "about 1 min"),
        (247, "about 4 min"),
        (3569, "about 59 min"),
        (3600, "about 1 h"),
        (5500, "about 1.5 h"),
        (50_000, "about 14 h"),
        (500_000, "about 139 h"),
    ],
)
def test_estimate_is_no_more_exact_than_it_can_be(seconds, words):
    assert estimate(seconds) == words
