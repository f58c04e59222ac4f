"""Answers that are kept for a while."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import pytest

from api.kept import Kept


def test_answer_is_found_once_until_it_is_too_old():
    now, numbers = [0.0], count(1)
    kept = Kept(lambda: next(numbers), seconds=2, clock=lambda: now[0])
    assert [kept.get(), kept.get()] == [1, 1]
    now[0] = 1.9
    assert kept.get() == 1
    now[0] = 2.0
    assert kept.get() == 2


def test_many_who_ask_at_once_wait_for_one_answer():
    together, numbers, now = Barrier(5), count(1), [0.0]

    def find() -> int:
        together.wait(10)  # all others have come to ask
        now[0] += 1  # and time passes while it is found out
        return next(numbers)

    def ask(number: int) -> int:
        if number > 0:
            together.wait(10)
        return kept.get()

    kept = Kept(find, seconds=1, clock=lambda: now[0])
    with ThreadPoolExecutor(5) as askers:
        assert list(askers.map(ask, range(5))) == [1] * 5


def test_failure_is_not_kept():
    outcomes = iter([OSError("away"), "back"])

    def find() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    kept = Kept(find, seconds=60)
    with pytest.raises(OSError, match="away"):
        kept.get()
    assert kept.get() == "back"
