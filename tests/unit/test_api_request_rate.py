"""A key's requests are bounded within each minute, by all processes together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import pytest

from api.request_rate import RequestRate
from shared.accounts.principal import LOCAL, Principal, Role
from shared.errors import Unavailable

ANN, BOB = Principal("ann", Role.USER, 1), Principal("bob", Role.ADMIN)


class Clock:
    now = 6000.0

    def __call__(self) -> float:
        return self.now


class Counts:
    """The counts that processes send each other, while Redis is there."""

    def __init__(self) -> None:
        self.by_minute: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.is_away = False

    def add(self, minute: int, counts: Mapping[str, int]) -> Mapping[str, int]:
        if self.is_away:
            raise Unavailable("away")
        self.by_minute[minute] += Counter(counts)
        return {whose: self.by_minute[minute][whose] for whose in counts}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counts():
    return Counts()


@pytest.fixture
def process(clock, counts, monkeypatch):
    """Makes what a process counts by; it tells the others when a test says so."""
    monkeypatch.setattr("api.request_rate.Poll.ask", lambda _: None)
    return lambda most=3: RequestRate(most, counts.add, clock)


def taken(rate: RequestRate, number: int, who=ANN) -> list[bool]:
    return [rate.take(who) == 0 for _ in range(number)]


def test_more_than_the_bound_waits_for_the_next_minute(process, clock):
    rate = process()
    clock.now = 6012.5
    assert taken(rate, 5) == [True, True, True, False, False]
    assert rate.take(ANN) == 48
    assert taken(rate, 3, BOB) == [True] * 3
    clock.now += rate.take(ANN)
    assert taken(rate, 4) == [True, True, True, False]


@pytest.mark.parametrize(("most", "who"), [(0, ANN), (3, LOCAL)])
def test_nothing_is_bounded_without_a_bound_or_keys(process, most, who):
    assert all(taken(process(most), 10, who))


def test_an_admin_who_is_called_local_is_bounded(process):
    assert taken(process(), 4, Principal("local", Role.ADMIN)) == [True, True, True, False]


def test_processes_count_together(process, counts):
    first, second = process(), process()
    assert taken(first, 2) == [True, True]
    first.tell()
    assert taken(second, 1) == [True]
    second.tell()
    assert taken(second, 1) == [False]
    assert taken(first, 1) == [True], "it has not told and heard since"
    first.tell()
    assert taken(first, 1) == [False]
    first.tell()
    assert counts.by_minute[100] == {"key 1": 4}


def test_each_counts_by_itself_while_nobody_is_heard_and_tells_it_afterwards(process, counts):
    rate, counts.is_away = process(), True
    taken(rate, 2)
    with pytest.raises(Unavailable):
        rate.tell()
    assert taken(rate, 2) == [True, False]
    counts.is_away = False
    rate.tell()
    assert counts.by_minute[100] == {"key 1": 3}


def test_what_is_counted_while_others_are_told_is_kept(process, counts, monkeypatch):
    rate = process()
    taken(rate, 1)
    add = counts.add
    monkeypatch.setattr(rate, "_add", lambda minute, told: [rate.take(ANN), add(minute, told)][1])
    rate.tell()
    assert taken(rate, 2) == [True, False]


def test_an_answer_about_the_minute_before_changes_nothing(process, clock, counts, monkeypatch):
    rate = process()
    taken(rate, 3)

    def late(minute: int, told: Mapping[str, int]) -> Mapping[str, int]:
        clock.now += 60
        rate.take(BOB)
        return counts.add(minute, told)

    monkeypatch.setattr(rate, "_add", late)
    rate.tell()
    assert taken(rate, 3) == [True] * 3
