"""Pauses between tries."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from shared.waiting.backoff import Backoff


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("shared.waiting.backoff.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_pauses_double_up_to_the_longest():
    backoff = Backoff(0.5, 3.0)
    assert [backoff.failed() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_night_of_failures_waits_no_longer_than_the_longest():
    backoff = Backoff(0.1, 2.0)
    assert max(backoff.failed() for _ in range(100_000)) == 2.0


def test_first_pause_is_bounded_too():
    assert Backoff(5.0, 2.0).failed() == 2.0


def test_success_forgets_the_failures():
    backoff = Backoff(1.0, 30.0)
    backoff.failed()
    backoff.failed()
    backoff.reset()
    assert backoff.is_due
    assert backoff.failed() == 1.0


def test_next_try_is_due_at_once_and_after_a_failure_when_its_pause_is_over(clock):
    backoff = Backoff(1.0, 30.0)
    assert backoff.is_due
    clock[0] += backoff.failed() + backoff.failed() - 1.01
    assert not backoff.is_due
    clock[0] += 0.01
    assert backoff.is_due
