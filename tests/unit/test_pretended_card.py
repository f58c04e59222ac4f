"""The pretended card behaves as a card does where that matters, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.support import pretended_card
from tests.support.card_ledger import Ledger

KIB = 1024


@pytest.fixture
def ledger(pretended: Ledger) -> Iterator[Ledger]:
    pretended.clear()
    yield pretended
    torch.cuda.synchronize()


@pytest.fixture
def side() -> torch.cuda.Stream:
    return torch.cuda.Stream()


def on_card(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(*shape, dtype=dtype, device="cuda:0")


def test_it_is_made_for_the_torch_that_is_installed_here() -> None:
    constraints = (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8")
    assert f"torch=={pretended_card.TORCH}" in constraints.splitlines(), "look through tests/support when this moves"


@pytest.mark.parametrize(
    ("module", "name", "value", "reason"),
    [
        (torch.version, "cuda", "13.0", "a build of torch for cards has no empty dispatch key to pretend one with"),
        (torch, "__version__", "2.14.0+cpu", "the pretended card knows torch 2.13.0, and this is 2.14.0+cpu"),
    ],
)
def test_another_build_of_torch_has_none_and_says_why(monkeypatch, module, name: str, value: str, reason: str) -> None:
    monkeypatch.setattr(module, name, value)
    assert pretended_card.reason_not_to() == reason
    with pytest.raises(RuntimeError, match="torch"):
        pretended_card.install()
    assert not torch.cuda.is_available()


def attributes(place: object) -> dict[str, object]:
    """What `place` itself has that can be called."""
    return {name: value for name, value in vars(place).items() if callable(value)}


def test_nothing_of_it_is_left_when_it_is_taken_away() -> None:
    if reason := pretended_card.reason_not_to():
        pytest.skip(reason)
    with pretended_card.installed():
        on_card(2)  # libraries that are imported at the first use change torch for themselves
    places = (torch, torch.cuda, torch.Tensor, functional)
    before = [attributes(place) for place in places]
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = functional.conv2d(x, x[:, :, :3, :3])
    with pretended_card.installed():
        assert torch.cuda.is_available()
        left = on_card(2)
        with torch.device("meta"):
            assert torch.empty(2).is_meta
    with torch.device("meta"):
        assert torch.empty(2).is_meta
    for place, known in zip(places, before, strict=True):
        now = attributes(place)
        assert [name for name in known.keys() | now.keys() if known.get(name) is not now.get(name)] == []
    with pytest.raises(NotImplementedError, match="CUDA"):
        on_card(2)
    assert np.array_equal(functional.conv2d(x, x[:, :, :3, :3]), expected)
    live = pretended_card.LEDGER.live
    del left
    assert pretended_card.LEDGER.live < live


def test_it_computes_what_the_cpu_computes(ledger: Ledger) -> None:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.backends.cudnn.conv.fp32_precision, before = "ieee", torch.backends.cudnn.conv.fp32_precision
    made = functional.conv2d(x.to("cuda"), weight.to("cuda"), padding=1)
    assert made.device == torch.device("cuda:0")
    assert torch.equal(made.cpu(), functional.conv2d(x, weight, padding=1))
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    rough = functional.conv2d(x.to("cuda"), weight.to("cuda"), padding=1).cpu()
    torch.backends.cudnn.conv.fp32_precision = before
    assert 1e-5 < float((rough - made.cpu()).abs().max()) < 1e-2, "TF32 keeps ten bits"
    assert ledger.errors == []


def test_bytes_are_made_on_it(ledger: Ledger) -> None:
    pixels = (on_card(3, 4) * torch.tensor(1.4)).clamp(-1, 1).mul(127.5).round().byte()
    assert pixels.cpu().tolist() == [[128] * 4] * 3


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: on_card(3) + torch.ones(3),
        lambda: functional.linear(on_card(2, 3), on_card(4, 3, dtype=torch.float16)),
        lambda: functional.scaled_dot_product_attention(*[on_card(1, 2, 3, 8)] * 3, attn_mask=torch.ones(3, 3) > 0),
    ],
    ids=["a tensor of the host", "two number formats", "a mask of the host"],
)
def test_what_a_card_refuses_is_raised_and_written_down(ledger: Ledger, mistake) -> None:
    with pytest.raises(RuntimeError, match=r"same device|one number format"):
        mistake()
    assert len(ledger.errors) == 1


def test_memory_is_booked_once_whatever_looks_at_it(ledger: Ledger) -> None:
    before = ledger.live
    flat = torch.empty(64 * KIB, dtype=torch.uint8, device="cuda")
    parts = [flat[: 4 * KIB].view(torch.float16).view(32, 64), flat.view(torch.float32).as_strided((4, 4), (4, 1), 64)]
    assert ledger.live == before + 64 * KIB
    del flat
    assert ledger.live == torch.cuda.memory_allocated() == before + 64 * KIB
    del parts
    assert ledger.live == before
    assert torch.cuda.max_memory_allocated() >= before + 64 * KIB


def test_more_than_it_holds_is_out_of_memory(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "capacity", ledger.live + 64 * KIB)
    held = on_card(8 * KIB)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        on_card(16 * KIB)
    assert ledger.ooms == 1
    assert torch.cuda.mem_get_info() == (ledger.capacity - ledger.live, ledger.capacity)
    assert held.shape == (8 * KIB,)


def test_more_than_can_be_pinned_is_cudas_error_and_not_a_lost_card(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = torch.empty(KIB, pin_memory=True)
    assert held.is_pinned()
    assert held[10:].is_pinned()
    assert not torch.empty(KIB).is_pinned()
    monkeypatch.setattr(ledger, "pinnable", sum(ledger.pinned.values()) + KIB)
    with pytest.raises(torch.AcceleratorError) as raised:
        torch.zeros(KIB).pin_memory()
    assert raised.value.error_code == 2
    before = sum(ledger.pinned.values())
    del held
    assert sum(ledger.pinned.values()) == before - 4 * KIB


@pytest.mark.parametrize(
    ("waiting", "what"),
    [
        (lambda: on_card(2).cpu(), "copy to the host"),
        (lambda: on_card(1).item(), "a number read from the card"),
        (lambda: bool(on_card(2).isfinite().all()), "a number read from the card"),
        (lambda: torch.ones(2).to("cuda"), "blocking copy to the card"),
        (lambda: on_card(2).nonzero(), "nonzero"),
        (lambda: on_card(2).copy_(torch.ones(2)), "blocking copy to the card"),
        (lambda: torch.empty(2).copy_(on_card(2), non_blocking=True), "copy to pageable memory of the host"),
        (lambda: torch.cuda.current_stream().synchronize(), "Stream.synchronize"),
        (lambda: torch.cuda.synchronize(0), "torch.cuda.synchronize"),
    ],
)
def test_what_waits_is_written_down_and_can_be_forbidden(ledger: Ledger, waiting, what: str) -> None:
    waiting()
    (entry,) = ledger.waits
    assert (entry.what, entry.thread) == (what, "MainThread")
    assert entry.place.startswith("tests/unit/test_pretended_card.py:")
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing"):
            waiting()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_what_does_not_wait_is_not_written_down_as_waiting(ledger: Ledger) -> None:
    sent = torch.ones(64 * KIB).pin_memory().to("cuda", non_blocking=True)
    (sent + 1).to("cpu", non_blocking=True)
    assert not ledger.waits
    torch.ones(64 * KIB).to("cuda", non_blocking=True)
    assert [entry.what for entry in ledger.notes] == ["non_blocking copy of pageable memory: the driver stages it"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_a_copy_into_pinned_memory_arrives_when_it_was_waited_for(ledger: Ledger, dtype: torch.dtype) -> None:
    made = on_card(3, 4, dtype=dtype)
    memory = torch.zeros(2, 3, 4, dtype=dtype, pin_memory=True)
    memory[1].copy_(made, non_blocking=True)
    early = torch.cuda.Event()
    fresh = made.to("cpu", non_blocking=True)
    late = torch.cuda.Event(blocking=True)
    late.record()
    early.synchronize()  # was never recorded: it says nothing
    for target in (memory[1], fresh):
        assert not torch.equal(target, torch.ones(3, 4, dtype=dtype))
    late.synchronize()
    for target in (memory[1], fresh):
        assert torch.equal(target, torch.ones(3, 4, dtype=dtype))
    assert torch.equal(memory[0], torch.zeros(3, 4, dtype=dtype))
    assert not ledger.waits


def test_pinned_memory_must_stay_as_it_is_while_the_card_fetches_from_it(ledger: Ledger) -> None:
    memory, target = torch.zeros(16, pin_memory=True), on_card(16)
    target.copy_(memory, non_blocking=True)
    torch.cuda.synchronize()
    memory.fill_(1)
    assert ledger.errors == []
    target.copy_(memory, non_blocking=True)
    memory.fill_(2)
    torch.cuda.synchronize()
    assert ["pinned memory was written" in error for error in ledger.errors] == [True]


def test_a_stream_must_wait_for_what_another_makes(ledger: Ledger, side: torch.cuda.Stream) -> None:
    with torch.cuda.stream(side):
        made = on_card(4)
        done = torch.cuda.Event()
        done.record()
        late = on_card(4)
    torch.cuda.current_stream().wait_event(done)
    made.add(1)
    assert ledger.errors == []
    late.add(1)
    assert ["reads what stream" in error for error in ledger.errors] == [True]


def test_a_stream_must_not_write_over_what_another_reads(ledger: Ledger, side: torch.cuda.Stream) -> None:
    made = on_card(4)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        made.add(1)
    made.add(1)
    assert ledger.errors == []
    made.add_(1)
    assert ["writes over what stream" in error for error in ledger.errors] == [True]


def test_what_the_host_has_waited_for_needs_no_event(ledger: Ledger, side: torch.cuda.Stream) -> None:
    with torch.cuda.stream(side):
        made = on_card(4)
        done = side.record_event()
    done.synchronize()
    made.add_(1)
    assert ledger.errors == []


def test_memory_that_another_stream_uses_is_let_go_after_the_allocator_was_told(
    ledger: Ledger, side: torch.cuda.Stream
) -> None:
    for is_told in (True, False):
        with torch.cuda.stream(side):
            made = on_card(4)
        torch.cuda.current_stream().wait_stream(side)
        made.add(1)
        if is_told:
            made.record_stream(torch.cuda.current_stream())
        del made
        with torch.cuda.stream(side):
            on_card(4)
        assert ["is taken again" in error for error in ledger.errors] == [] if is_told else [True]


def test_each_thread_has_its_own_current_stream(ledger: Ledger, side: torch.cuda.Stream) -> None:
    found = []
    with torch.cuda.stream(side):
        thread = threading.Thread(target=lambda: found.append(torch.cuda.current_stream()))
        thread.start()
        thread.join()
        assert torch.cuda.current_stream() is side
    assert found == [torch.cuda.default_stream()]
    assert torch.cuda.current_stream() is torch.cuda.default_stream()


def test_networks_are_still_made_without_values(ledger: Ledger) -> None:
    with torch.device("meta"):
        assert torch.nn.Linear(2, 3).weight.is_meta


def test_a_kernel_can_be_made_to_refuse(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, tensors: list[torch.Tensor]) -> None:
        if name == "convolution" and len(tensors[0]) > 1:
            raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(ledger, "on_kernel", refuse)
    functional.conv2d(on_card(1, 2, 4, 4), on_card(2, 2, 3, 3))
    with pytest.raises(RuntimeError, match="CUDNN_STATUS"):
        functional.conv2d(on_card(2, 2, 4, 4), on_card(2, 2, 3, 3))
