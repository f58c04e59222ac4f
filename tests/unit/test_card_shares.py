"""Images that are rendered side by side share the seconds of their card."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from shared.queue.claim import Claim
from worker.dispatch.card_shares import CardShares

ONE = Claim(1, 1, 0, 1, "ann", "c" * 64, 1, {}, 1)
OTHER = replace(ONE, image_id=2, index=1)


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def shares(now):
    return CardShares(lambda: now[0])


def test_an_image_alone_takes_all_the_time_that_it_is_rendered(shares, now):
    now[0] += 5
    with shares.taken_by(ONE):
        now[0] += 8
    now[0] += 5
    assert shares.seconds(ONE) == 8


def test_images_side_by_side_take_the_time_that_passes_and_no_more(shares, now):
    """One is rendered for 10 s; after 4 s another begins, and ends after the first."""
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(shares.taken_by(ONE))
        now[0] += 4
        second.enter_context(shares.taken_by(OTHER))
        now[0] += 6
        first.close()
        now[0] += 1
    assert (shares.seconds(ONE), shares.seconds(OTHER)) == (7, 4)


def test_an_attempt_that_fails_took_its_time_and_the_next_one_takes_its_own(shares, now):
    again = replace(ONE, attempt=2)
    with suppress(ZeroDivisionError), shares.taken_by(ONE):
        now[0] += 3
        raise ZeroDivisionError
    with shares.taken_by(again):
        now[0] += 2
    assert (shares.seconds(ONE), shares.seconds(again)) == (3, 2)


def test_an_image_that_was_never_rendered_took_nothing(shares):
    shares.forget(ONE)
    assert shares.seconds(ONE) == 0
