"""Calls of networks: what is asked again in halves, what is logged and counted of it, and what is learned."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import nn

from shared.errors import OutOfMemory, RenderError
from worker.engine.answers import calls as module
from worker.engine.answers.calls import FAILED, FULL, NO_ROOM_SECONDS, Calls, Subject
from worker.engine.devices import Device, device

FULL_CARD = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
LADDER = Device("cuda:0", "cuda", "a card", 80 * 2**30).ladder
REFUSED = "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def unet(shape: tuple[int, ...] = (4, 8, 8)) -> Subject:
    return Subject("denoise", nn.Identity(), shape)


class Card:
    """Answers rows with themselves, up to `rows` in a call, and notes how many each call had."""

    def __init__(self, rows: int, error: Exception = FULL_CARD) -> None:
        self.rows = rows
        self.asked: list[int] = []
        self._error = error

    def __call__(self, rows: Sequence[int]) -> Sequence[int]:
        self.asked.append(len(rows))
        if len(rows) > self.rows:
            raise self._error
        return rows


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that memory was given back to the card."""
    made: list[None] = []
    monkeypatch.setattr(module, "release_memory", lambda: made.append(None))
    return made


def test_a_call_that_fails_is_made_again_in_halves_in_order() -> None:
    card = Card(3)
    assert Calls().make(card, range(10), unet()) == list(range(10))
    assert card.asked == [10, 5, 2, 3, 5, 2, 3]


def test_a_row_that_fails_alone_is_answered_with_its_error() -> None:
    def call(rows: Sequence[int]) -> Sequence[int]:
        if 3 in rows:
            raise RuntimeError(REFUSED)
        return rows

    found = Calls().make(call, range(5), unet())
    assert found[:3] + found[4:] == [0, 1, 2, 4]
    assert str(found[3]) == REFUSED


def test_without_halves_a_call_that_fails_raises_and_is_counted() -> None:
    calls, card = Calls(halves=False), Card(1, RuntimeError(REFUSED))
    with pytest.raises(RuntimeError, match="NOT_SUPPORTED"):
        calls.make(card, range(4), unet())
    assert card.asked == [4]
    assert calls.broken == {FULL: 0, FAILED: 1}


def test_a_lost_card_is_never_asked_again() -> None:
    card = Card(0, torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(torch.AcceleratorError):
        Calls().make(card, range(4), unet())
    assert card.asked == [4]


# Reports.


def told(act: Callable[[], object]) -> list[Any]:
    with capture_logs() as lines:
        act()
    return [line for line in lines if line["event"] == "call failed"]


def test_what_breaks_calls_is_logged_once_with_the_error_and_counted_each_time() -> None:
    calls, of = Calls(), unet()
    broken = lambda rows: lambda: calls.make(Card(1, RuntimeError(REFUSED)), range(rows), of)  # noqa: E731 - twice
    (line,) = told(broken(4))
    assert (line["kind"], line["rows"], line["shape"], line["log_level"]) == ("denoise", 4, (4, 8, 8), "warning")
    assert REFUSED in str(line["exc_info"])
    assert calls.broken == {FULL: 0, FAILED: 3}
    assert told(broken(4)) == []
    assert calls.broken == {FULL: 0, FAILED: 6}
    assert len(told(broken(6))) == 1  # another shape


@pytest.mark.parametrize(
    ("error", "is_new"),
    [
        (RuntimeError("CUDNN_STATUS_NOT_SUPPORTED at 0x7f00aa, 11 of 16"), False),
        (RuntimeError("CUDNN_STATUS_BAD_PARAM at 0x7f00aa, 11 of 16"), True),
        (ValueError("CUDNN_STATUS_NOT_SUPPORTED at 0x7f00aa, 11 of 16"), True),
    ],
    ids=["numbers", "words", "type"],
)
def test_an_error_is_known_by_its_type_and_words_whatever_its_numbers(error: Exception, is_new: bool) -> None:  # noqa: FBT001
    calls, of = Calls(), unet()
    first = RuntimeError("CUDNN_STATUS_NOT_SUPPORTED at 0x12bd, 3 of 16")
    assert told(lambda: calls.make(Card(1, first), range(2), of))
    assert bool(told(lambda: calls.make(Card(1, error), range(2), of))) is is_new


def test_want_of_memory_is_one_error_whatever_it_says() -> None:
    calls = Calls()
    for size in (20, 30):
        calls.make(Card(1, torch.OutOfMemoryError(f"CUDA out of memory. Tried {size} MiB")), range(4), unet())
    assert calls.broken == {FULL: 6, FAILED: 0}
    one, other = Calls(), unet()
    assert told(lambda: one.make(Card(1), range(4), other))
    again = torch.OutOfMemoryError("CUDA out of memory. GPU 0 has a total capacity of another")
    assert told(lambda: one.make(Card(1, again), range(4), other)) == []


def test_however_many_kinds_of_errors_there_are_the_memory_of_them_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_LOGGED", 3)
    calls = Calls()
    assert len(told(lambda: [calls.make(Card(1), range(rows), unet()) for rows in range(2, 9)])) == 3


def test_what_a_picture_was_refused_for_on_purpose_is_no_broken_call() -> None:
    calls = Calls()
    assert told(lambda: calls.make(Card(0, RenderError("asked without a mask")), range(2), unet())) == []
    assert calls.broken == {FULL: 0, FAILED: 0}


def test_memory_is_given_back_for_want_of_memory_alone(releases: list[None]) -> None:
    Calls().make(Card(1, RuntimeError(REFUSED)), range(4), unet())
    assert releases == []
    Calls().make(Card(2), range(4), unet())
    assert len(releases) == 1


def test_an_answer_that_is_an_error_holds_nothing_that_its_call_held() -> None:
    class Large: ...

    held: list[weakref.ref[Large]] = []

    def call(rows: Sequence[int]) -> Sequence[int]:
        large = Large()
        held.append(weakref.ref(large))
        try:
            {}[rows]
        except (KeyError, TypeError) as error:
            raise RuntimeError(f"{REFUSED} {large}") from error
        return rows

    gc.disable()
    try:
        found = Calls().make(call, range(3), unet())
        assert all(isinstance(one, RuntimeError) for one in found)
        assert [one() for one in held if one() is not None] == []
    finally:
        gc.enable()


# Lessons.


def test_so_many_rows_as_had_no_room_are_not_tried_for_a_minute(clock: Clock) -> None:
    calls, of, card = Calls(clock=clock), unet(), Card(4)
    calls.make(card, range(16), of)
    assert card.asked == [16, 8, 4, 4, 8, 4, 4]
    for _ in range(10):
        card.asked.clear()
        calls.make(card, range(16), of)
        assert max(card.asked) < 8
        clock.now += 1
    clock.now += NO_ROOM_SECONDS
    card.asked.clear()
    calls.make(card, range(16), of)
    assert card.asked[0] == 16


def test_want_of_memory_is_rare_once_it_was_met(clock: Clock) -> None:
    """Sixteen rows where four have room: over ten turns, with rows as a card takes them."""
    calls, of, card = Calls(LADDER, clock=clock), unet(), Card(4)
    for _ in range(10):
        calls.make(card, range(min(16, calls.most_rows(of))), of)
    assert calls.broken[FULL] <= 4


def test_what_had_no_room_is_rows_times_their_size(clock: Clock) -> None:
    calls, small = Calls(clock=clock), unet((4, 8, 8))
    large = Subject(small.kind, small.network, (4, 16, 16))
    calls.make(Card(7), range(8), large)
    assert calls.most_rows(large) == 7
    assert calls.most_rows(small) == 31
    assert calls.most_rows(Subject("denoise", small.network, (4, 64, 64))) == 1
    assert calls.most_rows(unet((4, 16, 16))) > 1000  # another network


def test_what_was_learned_lasts_a_minute_from_the_latest_failure_on(clock: Clock) -> None:
    calls, of = Calls(clock=clock), unet()
    calls.make(Card(3), range(4), of)
    clock.now += NO_ROOM_SECONDS - 1
    calls.make(Card(2), range(3), of)
    assert calls.most_rows(of) == 2
    clock.now += 2
    assert calls.most_rows(of) == 2
    clock.now += NO_ROOM_SECONDS
    assert calls.most_rows(of) > 1000


def test_what_fails_for_another_reason_teaches_nothing(clock: Clock) -> None:
    calls, of = Calls(clock=clock), unet()
    calls.make(Card(2, RuntimeError(REFUSED)), range(8), of)
    assert calls.most_rows(of) > 1000


def test_what_was_learned_keeps_no_network_in_memory(clock: Clock) -> None:
    calls, of = Calls(clock=clock), unet()
    calls.make(Card(2), range(8), of)
    network = weakref.ref(of.network)
    del of
    assert network() is None


def test_what_nobody_uses_leaves_the_card_before_a_row_fails() -> None:
    card = Card(0)
    dropped: list[None] = []

    def drop() -> bool:
        dropped.append(None)
        card.rows = 8
        return True

    calls, of = Calls(on_full=drop), unet()
    assert calls.make(card, range(2), of) == [0, 1]
    assert card.asked == [2, 1, 1, 1]
    assert len(dropped) == 1
    assert calls.most_rows(of) > 1000, "there is more room now"


@pytest.mark.parametrize("frees", [True, False])
def test_a_row_that_has_no_room_all_the_same_fails(frees: bool) -> None:  # noqa: FBT001
    card = Card(0)
    (found,) = Calls(on_full=lambda: frees).make(card, [1], unet())
    assert isinstance(found, OutOfMemory)
    assert card.asked == ([1, 1] if frees else [1])


def test_nothing_is_dropped_for_a_row_that_fails_for_another_reason() -> None:
    calls = Calls(on_full=lambda: pytest.fail("was asked for memory"))
    calls.make(Card(0, RuntimeError(REFUSED)), range(2), unet())


def test_what_is_divisible_drops_nothing_and_is_refused_untried_while_its_size_has_no_room(clock: Clock) -> None:
    calls = Calls(clock=clock, on_full=lambda: pytest.fail("smaller parts may have room"))
    vae, card = nn.Identity(), Card(0)
    whole, part = (Subject("decode", vae, (4, side, side), is_divisible=True) for side in (72, 64))
    other = Subject("encode", vae, (3, 576, 576), is_divisible=True)
    for of in (whole, whole, part, whole, other, part):
        (found,) = calls.make(card, [1], of)
        assert isinstance(found, OutOfMemory)
    assert len(card.asked) == 3, "the whole, a part, and once the other way"
    clock.now += NO_ROOM_SECONDS
    calls.make(card, [1], whole)
    assert len(card.asked) == 4


# Portions.


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (5, [4, 1]), (11, [8, 2, 1]), (35, [32, 2, 1])],
)
def test_rows_go_in_portions_of_the_ladder(rows: int, expected: list[int]) -> None:
    card = Card(64)
    assert Calls(LADDER).make(card, range(rows), unet()) == list(range(rows))
    assert card.asked == expected


@pytest.mark.parametrize("rows", LADDER)
@pytest.mark.parametrize("room", [1, 3, 5, 11])
def test_halves_are_on_the_ladder_too(rows: int, room: int) -> None:
    card = Card(room)
    assert Calls(LADDER).make(card, range(rows), unet()) == list(range(rows))
    assert set(card.asked) <= set(LADDER)


def test_what_one_portion_taught_the_next_one_knows() -> None:
    card = Card(5)
    Calls(LADDER).make(card, range(24), unet(), 8)
    assert card.asked == [8, 4, 4, 6, 2, 4, 4, 4, 2]


def test_without_a_ladder_all_rows_go_together_or_so_many_as_are_wanted() -> None:
    card = Card(64)
    Calls(device("cpu").ladder).make(card, range(13), unet())
    Calls().make(card, range(5), unet(), 2)
    assert card.asked == [13, 2, 2, 1]
