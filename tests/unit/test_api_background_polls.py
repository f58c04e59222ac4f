"""Background polls: callers get the latest result at once, with its age."""

from __future__ import annotations

from itertools import count
from threading import Event, Thread

import pytest

from api import background_polls
from api.background_polls import Poll
from shared.errors import Unavailable
from tests.support.waiting import until


@pytest.fixture
def watch():
    made = []

    def make(look, seconds=0.01):
        made.append(Poll(look, seconds if callable(seconds) else lambda _: seconds))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_first_who_asks_is_told_what_the_first_look_found(watch):
    assert watch(lambda: "found").get().value == "found"


def test_it_is_looked_at_again_while_somebody_asks(watch):
    numbers = count(1)
    asked = watch(lambda: next(numbers))
    until(lambda: asked.get().value > 5)


def test_nobody_waits_for_a_look_that_hangs(watch, monkeypatch):
    monkeypatch.setattr(background_polls, "_PATIENCE_SECONDS", 0.05)
    gate, looks = Event(), count(1)

    def look():
        if next(looks) > 1:
            gate.wait(150)
        return "known"

    asked = watch(look)
    assert asked.get().value == "known"
    until(lambda: asked.get().silent_seconds > 0.2)
    threads = [Thread(target=asked.get) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    told = asked.get()
    assert told.value == "known"
    assert told.age_seconds >= told.silent_seconds
    gate.set()
    until(lambda: asked.get().silent_seconds == 0)


def test_a_first_look_that_hangs_is_waited_for_once_and_not_for_long(watch, monkeypatch):
    monkeypatch.setattr(background_polls, "_PATIENCE_SECONDS", 0.05)
    gate = Event()
    asked = watch(lambda: gate.wait(30))
    for _ in range(2):
        told = asked.get()
        assert (told.value, told.age_seconds) == (None, None)
        assert told.silent_seconds > 0.03
    gate.set()


def test_a_look_that_fails_leaves_what_was_known(watch):
    answers = iter(["known"])

    def look():
        for answer in answers:
            return answer
        raise Unavailable("away")

    asked = watch(look)
    until(lambda: (asked.get().age_seconds or 0) > 0.1)
    assert asked.get().value == "known"


def test_polling_stops_when_nobody_has_asked_for_long_and_starts_again_when_somebody_does(watch, monkeypatch):
    monkeypatch.setattr(background_polls, "_ASKED_SECONDS", 0.05)
    numbers = count(1)
    asked = watch(lambda: next(numbers))
    first = asked.get().value
    until(lambda: not asked._is_running)
    looks = next(numbers)
    asked._due_at -= 10  # as long after
    assert asked.get().value > looks > first


def test_what_was_found_says_how_soon_it_is_looked_at_again(watch):
    numbers = count(1)
    asked = watch(lambda: next(numbers), lambda found: 0.0 if found < 3 else 60.0)
    until(lambda: asked.get().value == 3)
    assert asked.get().value == 3
