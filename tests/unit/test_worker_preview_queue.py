"""The thread that previews are made on: the latest of each image, no more than a farm can spare for them."""

from __future__ import annotations

import time
import weakref
from dataclasses import replace
from threading import Event

import numpy as np
import pytest

from shared.params.render import RenderParams
from shared.queue.claim import Claim
from tests.support.waiting import until
from worker.progress import preview_queue
from worker.progress.preview_queue import SECONDS, PreviewQueue, pause

CLAIM = Claim(
    image_id=5, job_id=17, index=2, attempt=1, owner="local", checkpoint="c" * 64, cost=1,
    stored=RenderParams(steps=20, seed=7, width=64, height=64, checkpoint="demo [cccccccccc]").model_dump(mode="json"),
    worker_id=3,
)  # fmt: skip


@pytest.fixture
def shown() -> list[tuple[int, int]]:
    """The job and index of each preview, in the order in which they were shown."""
    return []


@pytest.fixture
def stage(shown, monkeypatch):
    """Shows previews as fast as they come, from the start on."""
    monkeypatch.setattr(preview_queue, "SECONDS", 0.0)
    monkeypatch.setattr(preview_queue, "SHARE", 1000.0)
    made = PreviewQueue(lambda job, index, webp: shown.append((job, index)))
    yield made
    made.stop()


def picture():
    return np.zeros((8, 8, 3), np.uint8)


def image(index: int) -> Claim:
    return replace(CLAIM, index=index)


def test_the_image_that_has_waited_longest_comes_first_with_its_latest_step(stage, shown):
    made = []
    for step, index in enumerate((0, 1, 0, 2)):
        stage.put(image(index), lambda step=step: made.append(step) or picture())
    stage.start()
    until(lambda: len(shown) == 3)
    assert shown == [(17, 0), (17, 1), (17, 2)]
    assert made == [2, 1, 3]


def test_an_image_that_has_ended_is_shown_no_more(stage, shown):
    stage.put(image(0), picture)
    stage.put(image(1), picture)
    stage.drop(image(0))
    stage.start()
    until(lambda: shown)
    assert shown == [(17, 1)]


def test_a_preview_that_fails_is_the_only_one(stage, shown):
    def fail():
        raise RuntimeError("no numbers")

    stage.put(image(0), fail)
    stage.put(image(1), picture)
    stage.start()
    until(lambda: shown)
    assert shown == [(17, 1)]


def test_whoever_brings_a_preview_waits_for_none(stage, shown):
    begun, gate = Event(), Event()
    stage.start()
    stage.put(image(0), lambda: begun.set() or (gate.wait(60) and picture()))
    assert begun.wait(60)
    for _ in range(1000):
        stage.put(image(0), picture)
    assert shown == []  # the first is still being made: nobody waited for it
    gate.set()
    until(lambda: len(shown) == 2)


def test_what_a_preview_was_made_of_is_let_go_before_the_next_one_comes(stage, shown):
    def make():
        return picture()

    held = weakref.ref(make)
    stage.start()
    stage.put(CLAIM, make)
    del make
    until(lambda: shown and held() is None)


def test_four_a_second_at_most_and_a_twentieth_of_the_time():
    assert pause(0.001, 0.01, 0.1) == pytest.approx(SECONDS - 0.01)  # a card made it
    assert pause(0.001, 0.5, 0.1) == 0.0  # waited for a card, which costs nothing
    for used in (0.1, 0.4, 2.0):  # computed here
        assert used / (used + pause(used, used, 99.0)) == pytest.approx(1 / 20)
        assert pause(used, 20 * used, 20 * used) == 0.0
        assert pause(used, 99.0, 19 * used) == SECONDS  # others use the machine: the renders had little of it


def test_a_pause_ends_with_the_worker(shown):
    made = PreviewQueue(lambda job, index, webp: shown.append((job, index)))
    made.start()
    made.put(CLAIM, lambda: time.sleep(0.01) or picture())
    until(lambda: shown)
    made.put(CLAIM, picture)
    made.stop()
    assert len(shown) == 1
