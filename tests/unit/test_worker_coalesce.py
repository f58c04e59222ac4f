"""Equal work of several slots at the same time is done once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from shared.errors import Unavailable
from tests.support.waiting import until
from worker.dispatch.coalesce import Coalescer


class Desk:
    """Answers each number with its double, when it may; remembers the numbers of each call."""

    def __init__(self):
        self.asked = []
        self.opened = Event()
        self.errors = []

    def __call__(self, numbers):
        self.asked.append(list(numbers))
        assert self.opened.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        if 13 in numbers:
            raise ZeroDivisionError
        return [2 * number for number in numbers]


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def asked_behind(desk, pool, numbers, **how):
    """Have the desk busy with 0, so that the numbers wait; return what each thread will hear, 0 first."""
    together = Coalescer(desk, **how)
    told = [pool.submit(together, 0)]
    until(lambda: desk.asked)
    for number in numbers:
        told.append(pool.submit(together, number))
        until(lambda: len(together._waiting) == len(told) - 1)
    return told


def test_who_asks_alone_waits_for_nobody(desk):
    desk.opened.set()
    together = Coalescer(desk)
    assert [together(1), together(2)] == [2, 4]
    assert desk.asked == [[1], [2]]


def test_who_asks_meanwhile_is_answered_with_the_others_who_did(desk, pool):
    told = asked_behind(desk, pool, [1, 2, 3])
    desk.opened.set()
    assert [one.result(10) for one in told] == [0, 2, 4, 6]
    assert desk.asked == [[0], [1, 2, 3]]


def test_an_error_is_everybodys(desk, pool):
    told = asked_behind(desk, pool, [1, 2])
    desk.errors = [Unavailable("away"), Unavailable("still away")]
    desk.opened.set()
    assert [str(one.exception(10)) for one in told] == ["away", "still away", "still away"]
    assert desk.asked == [[0], [1, 2]]


def test_nobody_fails_for_what_another_asked_where_it_may_be_of_one(desk, pool):
    told = asked_behind(desk, pool, [1, 13, 2], is_of_one=lambda error: isinstance(error, ZeroDivisionError))
    desk.opened.set()
    assert isinstance(told[2].exception(10), ZeroDivisionError)
    assert [told[place].result(10) for place in (0, 1, 3)] == [0, 2, 4]
    assert desk.asked == [[0], [1, 13, 2], [1], [13], [2]]


def test_many_threads_at_once_all_hear_their_own_answer(desk, pool):
    desk.opened.set()
    together = Coalescer(desk)
    assert list(pool.map(together, range(14, 2000))) == [2 * number for number in range(14, 2000)]
    assert sorted(number for call in desk.asked for number in call) == list(range(14, 2000))
