from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from shared.errors import Cancelled, ModelFileError, OutOfMemory
from worker.carried import Cancellation
from worker.residency import Residency


def use(residency, sha256, cancel=None):
    with residency.use(sha256, cancel or Cancellation()) as weights:
        return weights


def test_the_longest_unused_checkpoint_leaves_first():
    loads = []
    residency = Residency(lambda sha256: loads.append(sha256) or sha256.upper(), capacity=2)
    assert [use(residency, sha256) for sha256 in ("a", "b", "a", "c", "a")] == ["A", "B", "A", "C", "A"]
    assert loads == ["a", "b", "c"]
    assert residency.resident() == ["c", "a"]


def test_many_images_wait_for_one_load():
    loading, loads = Event(), []

    def load(sha256):
        loads.append(sha256)
        loading.wait(10)
        return sha256

    residency = Residency(load, capacity=1)
    with ThreadPoolExecutor(4) as slots:
        waiting = [slots.submit(use, residency, "a") for _ in range(4)]
        loading.set()
        assert [each.result(10) for each in waiting] == ["a"] * 4
    assert loads == ["a"]
    assert residency.load_seconds is not None


def test_what_is_in_use_stays_and_the_next_one_waits_for_room():
    residency = Residency(str.upper, capacity=1)
    with ThreadPoolExecutor(1) as slot:
        with residency.use("a", Cancellation()):
            waiting = slot.submit(use, residency, "b")
            assert residency.resident() == ["a"]
        assert waiting.result(10) == "B"
    assert residency.resident() == ["b"]


def test_a_cancelled_image_stops_waiting_for_room():
    residency, cancel = Residency(str.upper, capacity=1), Cancellation()
    with ThreadPoolExecutor(1) as slot, residency.use("a", Cancellation()):
        waiting = slot.submit(use, residency, "b", cancel)
        cancel.set()
        with pytest.raises(Cancelled):
            waiting.result(10)


def test_a_load_that_fails_is_tried_again_by_the_next_image():
    answers = iter([ModelFileError("truncated"), "weights"])

    def load(_):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    residency = Residency(load, capacity=1)
    with pytest.raises(ModelFileError, match="truncated"):
        use(residency, "a")
    assert residency.resident() == []
    assert use(residency, "a") == "weights"


def test_a_load_that_finds_no_memory_is_tried_once_more_without_what_is_unused():
    loads = []

    def load(sha256):
        loads.append((sha256, residency.resident()))
        if sha256 == "large" and "small" in residency.resident():
            raise OutOfMemory("no room")
        return sha256

    residency = Residency(load, capacity=3)
    use(residency, "small")
    assert use(residency, "large") == "large"
    assert loads == [("small", []), ("large", ["small"]), ("large", [])]


def test_a_load_that_finds_no_memory_beside_what_is_in_use_says_so_and_leaves_that_alone():
    def load(sha256):
        if sha256 == "large":
            raise OutOfMemory("no room")
        return sha256

    residency = Residency(load, capacity=3)
    with residency.use("small", Cancellation()), pytest.raises(OutOfMemory):
        use(residency, "large")
    assert residency.resident() == ["small"]
