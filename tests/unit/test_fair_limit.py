"""A limit shared by owners: one of each at a time, and nobody keeps the others waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread

import pytest

from shared.errors import Unavailable
from shared.media.fair_limit import FairLimit, Share
from tests.support.waiting import until


def limit(patience_seconds: float = 10, *, at_once: int = 2, most: int = 4, most_of_one: int = 2) -> FairLimit:
    return FairLimit(Share(at_once, most), lambda: Share(1, most_of_one), patience_seconds, refusal="no")


@contextmanager
def waiting(limit: FairLimit, owner: str, then: Callable[[], object] = lambda: None) -> Iterator[Thread]:
    """Another thread that wants a turn within the block, and has one after it."""
    wants = Event()

    def want() -> None:
        wants.set()
        with limit.held(owner):
            then()

    thread = Thread(target=want)
    thread.start()
    assert wants.wait(10)
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_owners_have_turns_side_by_side_as_many_as_there_are():
    few = limit(patience_seconds=0.01)
    with few.held("ann"), few.held("bob"), pytest.raises(Unavailable), few.held("eve"):
        pass
    with few.held("eve"):
        pass


def test_an_owner_has_one_turn_at_a_time_and_the_next_one_after_it():
    few, order = limit(), []
    with ExitStack() as after, few.held("ann"):
        after.enter_context(waiting(few, "ann", lambda: order.append("second")))
        with few.held("bob"):
            order.append("another's")
        order.append("first")
    assert order == ["another's", "first", "second"]


def test_more_of_one_owner_are_refused_at_once_while_others_may_still_wait():
    few, order = limit(at_once=1), []
    with ExitStack() as after, few.held("ann"):
        after.enter_context(waiting(few, "ann", lambda: order.append("ann")))
        until(lambda: few._inside["ann"] == 2)
        with pytest.raises(Unavailable), few.held("ann"):
            pass
        after.enter_context(waiting(few, "bob", lambda: order.append("bob")))
        until(lambda: few._inside["bob"] == 1)
    assert sorted(order) == ["ann", "bob"]


def test_nobody_waits_where_too_many_do():
    few = limit(at_once=1, most=1)
    with few.held("ann"), pytest.raises(Unavailable), few.held("bob"):
        pass


def test_a_turn_that_fails_is_over():
    few = limit(patience_seconds=0.01, at_once=1, most=1, most_of_one=1)
    for _ in range(3):
        with pytest.raises(RuntimeError), few.held("ann"):
            raise RuntimeError
    assert not few._inside


def test_an_owner_who_is_alone_has_all_turns():
    whole = Share(2, 4)
    few = FairLimit(whole, lambda: whole, 10, "no")
    with few.held("ann"), few.held("ann"):
        assert few._active["ann"] == 2
