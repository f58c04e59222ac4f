"""The model of time of the pretended card gives the figures that it was made from, and the waits that follow."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from tests.support import card_time
from tests.support.card_kernels import Card
from tests.support.card_ledger import Ledger
from tests.support.card_time import GAP, Clock, Turns, kernel_seconds
from worker.engine.architectures.reading import sd1

TURN = 0.121  # seconds of a U-Net call of 32 rows


@pytest.fixture
def ledger(pretended: Ledger) -> Iterator[Ledger]:
    pretended.clear()
    yield pretended
    torch.cuda.synchronize()


@pytest.mark.parametrize(("rows", "seconds"), [(2, 0.0076), (32, 0.121)])
def test_a_call_of_stable_diffusion_takes_what_was_reckoned(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, rows: int, seconds: float
) -> None:
    monkeypatch.setattr(ledger, "inner", "meta")
    unet = full_size()
    x, context = on_meta(rows, 4, 64, 64), on_meta(rows, 77, 768)
    x = x.contiguous(memory_format=torch.channels_last)
    ledger.clear()
    ledger.work = []
    with torch.inference_mode():
        unet(x, on_meta(rows, dtype=torch.float32), context)
    assert len(ledger.work) == pytest.approx(815, rel=0.03)
    assert sum(kernel_seconds(one) + GAP for one in ledger.work) == pytest.approx(seconds, rel=0.2)


def full_size() -> nn.Module:
    """Return Stable Diffusion 1's U-Net in float16, of weights that have no values."""
    config, *_ = sd1._described(sd1._USUAL)
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    last = {4: torch.channels_last}
    weights = {
        name: Card(weight.half().contiguous(memory_format=last.get(weight.dim(), torch.contiguous_format)))
        for name, weight in unet.state_dict().items()
    }
    unet.load_state_dict(weights, strict=True, assign=True)
    return unet.eval().requires_grad_(False)


def on_meta(*shape: int, dtype: torch.dtype = torch.float16) -> Card:
    return Card(torch.empty(shape, dtype=dtype, device="meta"))


@pytest.mark.parametrize(("turn", "minutes"), [(TURN, 4.6), (0.031, 1.17)], ids=["32 rows", "8 rows"])
def test_a_checkpoint_in_blocking_copies_takes_minutes_behind_two_turns_each(
    ledger: Ledger, turn: float, minutes: float
) -> None:
    weight = torch.zeros(470_000)  # 1,133 of them are 2.13 GB
    with card_time.running(ledger, busy=Turns(turn)) as clock:
        for _ in range(1133):
            weight.to("cuda:0")
        assert clock.now() / 60 == pytest.approx(minutes, rel=0.02)


def test_the_same_copies_take_a_second_where_the_card_is_idle(ledger: Ledger) -> None:
    weight = torch.zeros(470_000)
    with card_time.running(ledger) as clock:
        for _ in range(1133):
            weight.to("cuda:0")
        assert clock.now() == pytest.approx(2.13e9 / card_time.PAGEABLE, rel=0.05)


def test_copies_on_a_stream_of_their_own_from_pinned_memory_wait_for_no_turn(ledger: Ledger) -> None:
    turns, side = Turns(TURN), torch.cuda.Stream()
    chunk = torch.zeros(2**20, pin_memory=True)
    with card_time.running(ledger, busy=turns, scale=2.13e9 / 8 / chunk.nbytes) as clock:
        with torch.cuda.stream(side):
            flat = torch.empty(8, 2**20, device="cuda:0")
            for row in range(8):
                flat[row].copy_(chunk, non_blocking=True)
            done = side.record_event()
        assert clock.now() < 0.001, "the host goes on at once"
        torch.cuda.current_stream().wait_event(done)
        done.synchronize()
        assert clock.now() == pytest.approx(0.039, rel=0.03)
        clock.spend(10 * TURN)
        clock.mark(0)
        assert turns.stall() < 0.001, "what the engine was given before has taken longer than the copies"


def test_a_turn_that_waits_for_an_event_far_off_is_late(ledger: Ledger) -> None:
    turns, side = Turns(TURN), torch.cuda.Stream()
    with card_time.running(ledger, busy=turns) as clock:
        clock.hold(side.stream_id, 1.0)
        torch.cuda.current_stream().wait_event(side.record_event())
        clock.spend(2.0)
        clock.mark(0)
        assert turns.stall() == pytest.approx(1.0 - 2 * TURN, abs=0.01)


def test_work_on_another_stream_takes_its_share_of_the_turns(ledger: Ledger) -> None:
    turns, side = Turns(TURN), torch.cuda.Stream()
    with card_time.running(ledger, busy=turns, scale=2.13e9 / 2**22) as clock:
        clock.spend(5 * TURN)
        with torch.cuda.stream(side):
            torch.zeros(2**20, device="cuda:0").half()  # what a checkpoint of 2.13 GB converts
        clock.spend(5 * TURN)
        clock.mark(0)
        assert 0.001 < turns.stall() < 0.01


def test_a_thread_that_waits_for_an_event_sleeps_until_the_stream_is_there(ledger: Ledger) -> None:
    with card_time.running(ledger, scale=1e6) as clock:
        made = torch.ones(1000, device="cuda:0")
        made.add(1)
        event = torch.cuda.Event(blocking=True, enable_timing=True)
        event.record()
        before = clock.now()
        event.synchronize()
        assert clock.now() > before
        later = torch.cuda.Event(enable_timing=True)
        made.add(1)
        later.record()
        assert event.elapsed_time(later) == pytest.approx(1000 * (later.at - event.at))


def test_each_thread_has_its_own_time_and_a_new_one_begins_with_the_latest(ledger: Ledger) -> None:
    found = []

    def other(clock: Clock) -> None:
        found.append(clock.now())
        clock.spend(3.0)

    with card_time.running(ledger) as clock:
        clock.spend(2.0)
        thread = threading.Thread(target=other, args=(clock,))
        thread.start()
        thread.join()
        assert found == [2.0]
        assert clock.now() == pytest.approx(2.0)
        clock.catch_up()
        assert clock.now() == pytest.approx(5.0)
