from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from shared.errors import Cancelled, ModelFileError, OutOfMemory
from tests.support.waiting import until
from worker.in_flight import Cancellation
from worker.render.model_cache import Model, ModelCache

SECONDS = 10


def checkpoints(names: str) -> list[Model]:
    return [Model("checkpoint", name) for name in names]


def loading(model: Model, _: Cancellation | None = None) -> str:
    return model.sha256.upper()


def held(until_set: Event, loads: list[str]) -> Callable[[Model, Cancellation], str]:
    """Return a load that writes down what it is asked for, and does not end until it may."""

    def load(model: Model, _: Cancellation) -> str:
        loads.append(model.sha256)
        until_set.wait(SECONDS)
        return model.sha256

    return load


def use(residency, *names, cancel=None):
    """Hold the checkpoints `names` together for a moment."""
    models = checkpoints(names)
    with residency.use(models, cancel or Cancellation()) as weights:
        return "".join(weights[model] for model in models)


def test_the_longest_unused_checkpoint_leaves_first():
    loads = []
    residency = ModelCache(lambda model, _: loads.append(model.sha256) or loading(model), capacity=2)
    assert [use(residency, sha256) for sha256 in ("a", "b", "a", "c", "a")] == ["A", "B", "A", "C", "A"]
    assert loads == ["a", "b", "c"]
    assert residency.resident() == ["c", "a"]


def test_many_images_wait_for_one_load():
    may_load, loads = Event(), []
    residency = ModelCache(held(may_load, loads), capacity=1)
    with ThreadPoolExecutor(4) as slots:
        waiting = [slots.submit(use, residency, "a") for _ in range(4)]
        may_load.set()
        assert [each.result(SECONDS) for each in waiting] == ["a"] * 4
    assert loads == ["a"]


def test_what_is_in_use_stays_and_the_next_one_waits_for_room():
    residency = ModelCache(loading, capacity=1)
    with ThreadPoolExecutor(1) as slot:
        with residency.use(checkpoints("a"), Cancellation()):
            waiting = slot.submit(use, residency, "b")
            assert residency.resident() == ["a"]
        assert waiting.result(SECONDS) == "B"
    assert residency.resident() == ["b"]


def test_a_cancelled_image_stops_waiting_for_room():
    residency, cancel = ModelCache(loading, capacity=1), Cancellation()
    with ThreadPoolExecutor(1) as slot, residency.use(checkpoints("a"), Cancellation()):
        waiting = slot.submit(use, residency, "b", cancel=cancel)
        cancel.set()
        with pytest.raises(Cancelled):
            waiting.result(SECONDS)


def test_a_cancelled_image_stops_waiting_for_the_load_of_another():
    may_load, loads, cancel = Event(), [], Cancellation()
    residency = ModelCache(held(may_load, loads), capacity=2)
    with ThreadPoolExecutor(3) as slots:
        first = slots.submit(use, residency, "a")
        until(lambda: loads == ["a"])
        cancelled, patient = slots.submit(use, residency, "b", cancel=cancel), slots.submit(use, residency, "b")
        cancel.set()
        with pytest.raises(Cancelled):
            cancelled.result(SECONDS)
        assert loads == ["a"], "one at a time"
        may_load.set()
        assert (first.result(SECONDS), patient.result(SECONDS)) == ("a", "b")
    assert loads == ["a", "b"]


def test_a_load_that_fails_is_tried_again_by_the_next_image():
    answers = iter([ModelFileError("truncated"), "weights"])

    def load(_, __):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    residency = ModelCache(load, capacity=1)
    with pytest.raises(ModelFileError, match="truncated"):
        use(residency, "a")
    assert residency.resident() == []
    assert use(residency, "a") == "weights"


def test_a_load_that_finds_no_memory_is_tried_once_more_without_what_is_unused():
    loads = []

    def load(model, _):
        loads.append((model.sha256, residency.resident()))
        if model.sha256 == "large" and "small" in residency.resident():
            raise OutOfMemory("no room")
        return model.sha256

    residency = ModelCache(load, capacity=3)
    use(residency, "small")
    assert use(residency, "large") == "large"
    assert loads == [("small", []), ("large", ["small"]), ("large", [])]


def test_a_load_that_finds_no_memory_beside_what_is_in_use_says_so_and_leaves_that_alone():
    def load(model, _):
        if model.sha256 == "large":
            raise OutOfMemory("no room")
        return model.sha256

    residency = ModelCache(load, capacity=3)
    with residency.use(checkpoints(["small"]), Cancellation()), pytest.raises(OutOfMemory):
        use(residency, "large")
    assert residency.resident() == ["small"]


def test_the_longest_unused_leave_until_there_is_room_enough():
    sizes = {"a": 5, "b": 3, "c": 4}
    residency = ModelCache(loading, capacity=3)
    for sha256 in "abc":
        use(residency, sha256)
    assert residency.drop_unused(lambda model: sizes[model.sha256], 6)
    assert residency.resident() == ["c"]
    with residency.use(checkpoints("c"), Cancellation()):
        assert not residency.drop_unused()
    assert residency.drop_unused()
    assert residency.resident() == []


# Several for one image.


def test_an_image_gets_all_it_needs_though_fewer_are_kept():
    residency = ModelCache(loading, capacity=1)
    assert use(residency, "a", "b") == "AB"
    assert residency.resident() == ["a", "b"]
    assert use(residency, "c") == "C"
    assert residency.resident() == ["c"]


def test_an_image_that_needs_more_than_are_kept_waits_for_those_in_use():
    residency = ModelCache(loading, capacity=1)
    with ThreadPoolExecutor(1) as slot:
        with residency.use(checkpoints("c"), Cancellation()):
            waiting = slot.submit(use, residency, "a", "b")
            assert residency.resident() == ["c"]
        assert waiting.result(SECONDS) == "AB"


def test_images_that_need_the_same_two_in_any_order_never_hold_each_other_up():
    residency = ModelCache(loading, capacity=1)
    wanted = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "a"), ("a",), ("c", "b", "a")] * 40
    with ThreadPoolExecutor(8) as slots:
        done = [slots.submit(use, residency, *names) for names in wanted]
        assert [each.result(SECONDS) for each in done] == ["".join(names).upper() for names in wanted]


def test_what_one_image_could_load_is_there_for_others_when_the_rest_failed():
    may_fail, loads = Event(), []

    def load(model, _):
        loads.append(model.sha256)
        if loads == ["a", "b"]:
            may_fail.wait(SECONDS)
            raise ModelFileError("truncated")
        return loading(model)

    residency = ModelCache(load, capacity=2)
    with ThreadPoolExecutor(2) as slots:
        failing = slots.submit(use, residency, "b", "a")
        until(lambda: len(loads) == 2)
        waiting = slots.submit(use, residency, "b")
        may_fail.set()
        with pytest.raises(ModelFileError):
            failing.result(SECONDS)
        assert waiting.result(SECONDS) == "B"
    assert loads == ["a", "b", "b"]
    assert sorted(residency.resident()) == ["a", "b"]


def test_vaes_are_kept_beside_checkpoints_and_counted_apart():
    residency = ModelCache(loading, capacity=1)
    with residency.use([Model("checkpoint", "a"), Model("vae", "v")], Cancellation()) as weights:
        assert sorted(weights.values()) == ["A", "V"]
        assert residency.resident() == ["a"]
    loads = []
    residency = ModelCache(lambda model, _: loads.append(model.sha256) or loading(model), capacity=1)
    for vae in ("v", "w", "v"):
        with residency.use([Model("checkpoint", "a"), Model("vae", vae)], Cancellation()):
            pass
    assert loads == ["a", "v", "w", "v"]


def test_memory_for_a_checkpoint_is_made_of_unused_vaes_too():
    def load(model, _):
        if model.sha256 == "large" and loads:
            loads.clear()
            raise OutOfMemory("no room")
        loads.append(model.sha256)
        return model.sha256

    loads: list[str] = []
    residency = ModelCache(load, capacity=2)
    with residency.use([Model("vae", "v")], Cancellation()):
        pass
    assert use(residency, "large") == "large"
