from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from shared.errors import Cancelled, ModelFileError, OutOfMemory
from tests.support.waiting import until
from worker.in_flight import Cancellation
from worker.render.model_cache import Model, ModelCache
from worker.render.residency import Residency

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


def at_most(count: int) -> Callable[[Collection[Model]], bool]:
    """Return the rule that so many models may be resident."""
    return lambda models: len(set(models)) <= count


def of_sizes(budget: int, **networks: str) -> Callable[[Collection[Model]], bool]:
    """Return the rule of a budget. A model consists of networks, each with its size behind it: `a="unet5 vae2"`."""
    residency = Residency(lambda: budget)
    for sha256, names in networks.items():
        sizes = {name: int(name[-1]) for name in names.split()}
        for kind in ("checkpoint", "vae"):
            residency.weigh(Model(kind, sha256), sizes)
    return residency.fits


def use(residency, *names, cancel=None):
    """Hold the checkpoints `names` together for a moment."""
    models = checkpoints(names)
    with residency.use(models, cancel or Cancellation()) as weights:
        return "".join(weights[model] for model in models)


def test_the_longest_unused_checkpoint_leaves_first():
    loads = []
    residency = ModelCache(lambda model, _: loads.append(model.sha256) or loading(model), at_most(2))
    assert [use(residency, sha256) for sha256 in ("a", "b", "a", "c", "a")] == ["A", "B", "A", "C", "A"]
    assert loads == ["a", "b", "c"]
    assert residency.resident() == ["c", "a"]


def test_many_images_wait_for_one_load():
    may_load, loads = Event(), []
    residency = ModelCache(held(may_load, loads), at_most(1))
    with ThreadPoolExecutor(4) as slots:
        waiting = [slots.submit(use, residency, "a") for _ in range(4)]
        may_load.set()
        assert [each.result(SECONDS) for each in waiting] == ["a"] * 4
    assert loads == ["a"]


def test_what_is_in_use_stays_and_the_next_one_waits_for_room():
    residency = ModelCache(loading, at_most(1))
    with ThreadPoolExecutor(1) as slot:
        with residency.use(checkpoints("a"), Cancellation()):
            waiting = slot.submit(use, residency, "b")
            assert residency.resident() == ["a"]
        assert waiting.result(SECONDS) == "B"
    assert residency.resident() == ["b"]


def test_a_cancelled_image_stops_waiting_for_room():
    residency, cancel = ModelCache(loading, at_most(1)), Cancellation()
    with ThreadPoolExecutor(1) as slot, residency.use(checkpoints("a"), Cancellation()):
        waiting = slot.submit(use, residency, "b", cancel=cancel)
        cancel.set()
        with pytest.raises(Cancelled):
            waiting.result(SECONDS)


def test_a_cancelled_image_stops_waiting_for_the_load_of_another():
    may_load, loads, cancel = Event(), [], Cancellation()
    residency = ModelCache(held(may_load, loads), at_most(2))
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

    residency = ModelCache(load, at_most(1))
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

    residency = ModelCache(load, at_most(3))
    use(residency, "small")
    assert use(residency, "large") == "large"
    assert loads == [("small", []), ("large", ["small"]), ("large", [])]


def test_a_load_that_finds_no_memory_beside_what_is_in_use_says_so_and_leaves_that_alone():
    def load(model, _):
        if model.sha256 == "large":
            raise OutOfMemory("no room")
        return model.sha256

    residency = ModelCache(load, at_most(3))
    with residency.use(checkpoints(["small"]), Cancellation()), pytest.raises(OutOfMemory):
        use(residency, "large")
    assert residency.resident() == ["small"]


def test_the_longest_unused_leave_until_there_is_room_enough():
    sizes = {"a": 5, "b": 3, "c": 4}
    residency = ModelCache(loading, at_most(3))
    for sha256 in "abc":
        use(residency, sha256)
    assert residency.drop_unused(lambda models: sum(sizes[model.sha256] for model in models), 6)
    assert residency.resident() == ["c"]
    with residency.use(checkpoints("c"), Cancellation()):
        assert not residency.drop_unused()
    assert residency.drop_unused()
    assert residency.resident() == []


# Several for one image.


def test_an_image_gets_all_it_needs_though_fewer_are_kept():
    residency = ModelCache(loading, at_most(1))
    assert use(residency, "a", "b") == "AB"
    assert residency.resident() == ["a", "b"]
    assert use(residency, "c") == "C"
    assert residency.resident() == ["c"]


def test_an_image_that_needs_more_than_are_kept_waits_for_those_in_use():
    residency = ModelCache(loading, at_most(1))
    with ThreadPoolExecutor(1) as slot:
        with residency.use(checkpoints("c"), Cancellation()):
            waiting = slot.submit(use, residency, "a", "b")
            assert residency.resident() == ["c"]
        assert waiting.result(SECONDS) == "AB"


def test_images_that_need_the_same_two_in_any_order_never_hold_each_other_up():
    residency = ModelCache(loading, at_most(1))
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

    residency = ModelCache(load, at_most(2))
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


def test_memory_for_a_checkpoint_is_made_of_unused_vaes_too():
    def load(model, _):
        if model.sha256 == "large" and loads:
            loads.clear()
            raise OutOfMemory("no room")
        loads.append(model.sha256)
        return model.sha256

    loads: list[str] = []
    residency = ModelCache(load, at_most(2))
    with residency.use([Model("vae", "v")], Cancellation()):
        pass
    assert use(residency, "large") == "large"


# A budget in bytes.


def test_models_stay_while_the_budget_holds_them_and_then_the_longest_unused_leave():
    residency = ModelCache(loading, of_sizes(9, a="a3", b="b3", c="c3", d="d5"))
    for sha256 in "abcad":
        use(residency, sha256)
    assert residency.resident() == ["a", "d"]


def test_a_network_of_several_models_counts_once():
    residency = ModelCache(loading, of_sizes(9, a="text2 unet3", b="text2 unet4", c="text2 unet5"))
    use(residency, "a")
    use(residency, "b")
    assert residency.resident() == ["a", "b"]
    use(residency, "c")
    assert residency.resident() == ["c"], "5 + 4 + 2 is too much"


def test_a_model_larger_than_the_budget_is_there_while_nobody_uses_others():
    residency = ModelCache(loading, of_sizes(4, a="a9", b="b2"))
    use(residency, "b")
    assert use(residency, "a") == "A"
    assert residency.resident() == ["a"]
    assert use(residency, "b") == "B"
    assert residency.resident() == ["b"]


def test_a_budget_that_shrinks_drops_nothing_until_something_else_is_wanted():
    budget = [9]
    sizes = Residency(lambda: budget[0])
    for model in checkpoints("abc"):
        sizes.weigh(model, {model.sha256: 4})
    residency = ModelCache(loading, sizes.fits)
    use(residency, "a")
    use(residency, "b")
    budget[0] = 4
    assert use(residency, "a", "b") == "AB"
    assert use(residency, "c") == "C"
    assert residency.resident() == ["c"]


def test_what_has_to_leave_leaves_although_the_budget_shrinks_at_that_moment():
    a, c = checkpoints("ac")
    budget = 2

    def fits(models: Collection[Model]) -> bool:
        nonlocal budget
        if is_room := len(models) <= budget:
            budget = 1 if set(models) == {a, c} else budget
        return is_room

    residency = ModelCache(loading, fits)
    use(residency, "b")
    with residency.use([a], Cancellation()):
        assert use(residency, "c") == "C"
        assert residency.models() == [a, c]


def test_a_budget_that_shrinks_between_two_questions_keeps_nobody_waiting():
    answers = iter([True])
    residency = ModelCache(loading, lambda _: next(answers, False))
    use(residency, "a")
    cancel = Cancellation()
    with ThreadPoolExecutor(1) as slot:
        try:
            assert slot.submit(use, residency, "b", cancel=cancel).result(SECONDS) == "B"
        finally:
            cancel.set()


def test_so_many_checkpoints_at_most_if_a_number_is_set_too():
    sizes = Residency(lambda: 99, most_checkpoints=1)
    assert sizes.fits([Model("checkpoint", "a"), Model("vae", "b"), Model("vae", "c")])
    assert not sizes.fits(checkpoints("ab"))


# Nothing leaves for an image that then has to wait.


def test_nothing_leaves_for_an_image_that_waits_because_another_model_is_in_use():
    residency = ModelCache(loading, of_sizes(10, a="a4", b="b4", v="v3", w="w5"))
    with residency.use([Model("vae", "v")], Cancellation()):
        use(residency, "a")
        with ThreadPoolExecutor(1) as slot:
            waiting = slot.submit(_use, residency, Model("checkpoint", "b"), Model("vae", "w"))
            until(lambda: len(residency._waiting) == 1)
            assert residency.resident() == ["a"], "without it there would still be no room"
            residency._waiting[0].cancel.set()
            with pytest.raises(Cancelled):
                waiting.result(SECONDS)
        assert residency.resident() == ["a"]


def test_nothing_leaves_for_an_image_that_waits_for_the_load_of_another():
    may_load, loads = Event(), []

    def load(model: Model, _: Cancellation) -> str:
        loads.append(model.sha256)
        if model.sha256 == "b":
            may_load.wait(SECONDS)
        return model.sha256

    residency = ModelCache(load, at_most(2))
    use(residency, "a")
    with ThreadPoolExecutor(2) as slots:
        first = slots.submit(use, residency, "b")
        until(lambda: loads == ["a", "b"])
        second = slots.submit(use, residency, "c")
        until(lambda: len(residency._waiting) == 1)
        assert residency.resident() == ["a"]
        may_load.set()
        assert (first.result(SECONDS), second.result(SECONDS)) == ("b", "c")
    assert residency.resident() == ["b", "c"]


# Images that wait do not starve each other.


def test_an_image_that_waits_for_room_is_not_passed_by_those_that_keep_it_out():
    residency, may_end, order = ModelCache(loading, at_most(1)), Event(), []

    def render(sha256: str, until_set: Event) -> None:
        with residency.use(checkpoints(sha256), Cancellation()):
            order.append(sha256)
            until_set.wait(SECONDS)

    at_once = Event()
    at_once.set()
    with ThreadPoolExecutor(4) as slots:
        first = slots.submit(render, "a", may_end)
        until(lambda: order == ["a"])
        others = [slots.submit(render, "b", at_once)]
        until(lambda: len(residency._waiting) == 1)
        others += [slots.submit(render, "a", at_once) for _ in range(2)]
        until(lambda: len(residency._waiting) == 3)
        may_end.set()
        for one in (first, *others):
            one.result(SECONDS)
    assert order == ["a", "b", "a", "a"]


def test_a_later_image_goes_first_where_that_holds_nobody_up():
    residency, may_end = ModelCache(loading, of_sizes(10, a="a4", b="b4", c="c6", d="d5")), Event()
    with ThreadPoolExecutor(3) as slots:
        held = slots.submit(_hold, residency, "a", may_end)
        until(lambda: residency.resident() == ["a"])
        also = slots.submit(_hold, residency, "b", may_end)
        until(lambda: residency.resident() == ["a", "b"])
        large = slots.submit(use, residency, "c")  # fits beside one of the two
        until(lambda: len(residency._waiting) == 1)
        assert use(residency, "a") == "A", "both fit once b is unused"
        cancel = Cancellation()
        with ThreadPoolExecutor(1) as slot:
            other = slot.submit(use, residency, "d", cancel=cancel)
            until(lambda: len(residency._waiting) == 2)
            assert not other.done(), "c and d together are too much"
            cancel.set()
            with pytest.raises(Cancelled):
                other.result(SECONDS)
        may_end.set()
        assert (large.result(SECONDS), held.result(SECONDS), also.result(SECONDS)) == ("C", "A", "B")


def test_a_set_larger_than_the_budget_and_small_ones_all_come_to_their_turn():
    residency = ModelCache(loading, of_sizes(5, a="a4", b="b4", c="c3"))
    wanted = [("a",), ("b",), ("a", "b"), ("c",), ("a",), ("b", "c"), ("a", "b", "c")] * 30
    with ThreadPoolExecutor(6) as slots:
        done = [slots.submit(use, residency, *names) for names in wanted]
        assert [each.result(SECONDS) for each in done] == ["".join(names).upper() for names in wanted]


# Models that are made of others.

BASE = Model("checkpoint", "b")
MADE = Model("other", "m", base=BASE)


@pytest.mark.parametrize(("budget", "left"), [(5, [MADE]), (6, [BASE, MADE])])
def test_a_base_is_there_while_a_model_is_made_of_it_and_then_only_if_there_is_room(budget, left):
    sizes, seen = Residency(lambda: budget), []
    for model in (BASE, MADE):
        sizes.weigh(model, {model.sha256: 3})

    def load(model, _):
        seen.append((model, residency.models()))
        return model.sha256

    residency = ModelCache(load, sizes.fits)
    assert residency.missing([MADE]) == [BASE, MADE]
    with residency.use([MADE], Cancellation()) as held:
        assert held == {MADE: "m"}
        assert residency.models() == left
    assert seen == [(BASE, []), (MADE, [BASE])]
    assert residency.missing([MADE]) == []
    residency.drop_unused()
    assert residency.missing([BASE, MADE]) == [BASE, MADE]


def test_what_is_made_of_a_model_that_left_stays_without_it():
    residency = ModelCache(loading, at_most(1))
    _use(residency, MADE)
    _use(residency, MADE)
    assert residency.models() == [MADE]


def test_a_base_that_another_image_uses_stays_beside_what_is_made_of_it():
    most = [2]

    def load(model, _):
        most[0] = 1  # from then on nothing more would fit
        return model.sha256

    residency = ModelCache(load, lambda models: len(models) <= most[0])
    with residency.use([BASE], Cancellation()):
        most[0] = 2
        _use(residency, MADE)
        assert residency.models() == [BASE, MADE]


def test_a_model_that_cannot_be_made_leaves_its_base_to_the_images_after_it():
    def load(model, _):
        if model == MADE:
            raise ModelFileError("does not fit")
        return model.sha256

    residency = ModelCache(load, at_most(1))
    with pytest.raises(ModelFileError, match="does not fit"):
        _use(residency, MADE)
    assert residency.models() == [BASE]


def _use(residency, *models):
    with residency.use(models, Cancellation()):
        pass


def _hold(residency, sha256, until_set):
    with residency.use(checkpoints(sha256), Cancellation()) as weights:
        until_set.wait(SECONDS)
        return "".join(weights.values())
