"""Answers that are kept for a while."""

from __future__ import annotations

from itertools import count

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
