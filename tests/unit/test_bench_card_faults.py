"""Checks of the acceptance run see what they are for: each is shown a fault, on a pretended card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import structlog
import torch

from bench import company, plain
from bench.card import bench as bench_module
from bench.card import children, correctness, faults, files, memory, peers, rendering, speed, switch, tests, trouble
from bench.card.bench import Bench, Setting
from bench.card.measures import Measure
from shared.media.arrays import Pixels
from tests.support import pretended_card
from tests.support.card_ledger import Ledger
from worker.engine.answers import denoising
from worker.engine.architectures.weights import Weights
from worker.engine.loading import load as checkpoints
from worker.supervisor.child import HUNG, LOST

pytestmark = [pytest.mark.usefixtures("pretended"), pytest.mark.nightly]

Verdicts = dict[str, bool | None]


class Told(list[Measure]):
    """What a check has told."""

    def verdicts(self) -> Verdicts:
        return {measure.name: measure.is_ok for measure in self}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def bench(scratch: Path, told: Told) -> Callable[[int], Bench]:
    setting = Setting("cuda:0", scratch, scratch / "demo", scratch / "log", pretends=True)

    def keep(message: object) -> None:
        if isinstance(message, Measure):
            told.append(message)

    return lambda part: Bench(setting, part, {}, time.monotonic() + 60, keep)


def load(bench: Bench) -> Weights:
    return checkpoints.load(files.full(bench.setting), bench.card, torch.float16)


def test_every_process_of_a_run_has_the_chosen_card_and_the_engines_settings(
    bench: Callable[[int], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((structlog, "configure"), (pretended_card, "install")):
        monkeypatch.setattr(module, name, lambda **_: None)  # they are this process's own
    monkeypatch.setattr(structlog, "WriteLoggerFactory", lambda file: file.close())
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    torch.backends.cuda.enable_cudnn_sdp(enabled=True)
    children.enter(replace(bench(2).setting, card="cuda:1"))
    assert chosen == [torch.device("cuda:1")]
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_attention_is_timed_by_cudnn_and_without_it(
    bench: Callable[[int], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, flights = bench(6), []

    def measured(*arguments: Any) -> float:
        flights.append(torch.backends.cuda.cudnn_sdp_enabled())
        return as_ever(*arguments)

    as_ever = rendering.Flight.measured
    monkeypatch.setattr(rendering.Flight, "measured", measured)
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    speed._attention(part, load(part))
    assert flights == [True, False]
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_diffusers_keeps_the_attention_that_it_comes_with(
    bench: Callable[[int], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, found = bench(6), []
    monkeypatch.setattr(plain, "pictures", lambda *_, **__: found.append(torch.backends.cuda.cudnn_sdp_enabled()))
    monkeypatch.setattr(peers, "_called", lambda *_: found.append(torch.backends.cuda.cudnn_sdp_enabled()))
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    peers.Peer(cast("plain.Networks", None), 64, 1).pictures_a_second(1)
    peers.larger(part)
    assert found
    assert all(found)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.nightly
@pytest.mark.parametrize("is_planted", [False, True])
def test_memory_that_an_evicted_checkpoint_keeps_fails(
    bench: Callable[[int], Bench], told: Told, monkeypatch: pytest.MonkeyPatch, *, is_planted: bool
) -> None:
    kept: list[Weights] = []

    def leaking(*arguments: Any) -> Weights:
        weights = load_(*arguments)
        kept.append(weights)
        return weights

    load_ = checkpoints.load
    if is_planted:
        monkeypatch.setattr(checkpoints, "load", leaking)
    memory._cycles(bench(4))
    assert told.verdicts()["1 loads and evictions: kept of what one takes"] is not is_planted


def test_a_card_that_refuses_turn_after_turn_fails(
    bench: Callable[[int], Bench], told: Told, pretended: Ledger
) -> None:
    part = bench(4)
    weights = load(part)
    with memory.room_for(part, 24 * 2**20):
        assert pretended.allowed < 1
    assert pretended.allowed == 1
    refused = iter(range(1000))

    def refusing(*_: object) -> int:
        return next(refused)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "out_of_memory", refusing)
        patch.setattr(bench_module, "TINY", replace(part.scale, free_turns=1))
        memory._small(part, weights)
    assert told.verdicts()["a tight card: out of memory, times a turn after 1"] is False


@pytest.mark.nightly
@pytest.mark.parametrize("is_planted", [False, True])
def test_a_tight_card_that_never_runs_out_is_none(
    bench: Callable[[int], Bench], told: Told, monkeypatch: pytest.MonkeyPatch, *, is_planted: bool
) -> None:
    part = bench(4)
    weights = load(part)
    if is_planted:
        monkeypatch.setattr(memory, "room_for", lambda *_: nullcontext())
    memory._small(part, weights)
    assert told.verdicts()["a tight card: out of memory, times in all"] is not is_planted
    assert [one.name for one in told if one.is_ok is False] == [
        "a tight card: out of memory, times in all"
    ] * is_planted


def test_a_turn_that_was_held_up_when_a_measure_began_is_told(bench: Callable[[int], Bench], told: Told) -> None:
    turns, flight = rendering.Turns(), cast("rendering.Flight", SimpleNamespace(until=lambda _: None))
    for at in (1.0, 1.5):
        turns("steps", 0.0)
        turns.at[-1] = at
    switch._steps(bench(5), turns, flight, "alone")
    turns.at += [4.5, 5.0]
    switch._steps(bench(5), turns, flight, "beside")
    assert [(one.name, one.value) for one in told if "longest" in one.name] == [
        ("alone, longest", 500.0), ("beside, longest", 3000.0),
    ]  # fmt: skip


@pytest.mark.parametrize("is_planted", [False, True])
def test_a_mask_that_hides_nothing_fails(
    bench: Callable[[int], Bench], told: Told, monkeypatch: pytest.MonkeyPatch, *, is_planted: bool
) -> None:
    part = bench(2)
    if is_planted:
        plain = denoising._denoise_rows

        def unmasked(weights: Weights, rows: Sequence[Any]) -> Sequence[torch.Tensor]:
            forward = weights.unet.forward
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    weights.unet,
                    "forward",
                    lambda *given, **named: forward(*given, **(named | {"encoder_attention_mask": None})),
                )
                return plain(weights, rows)

        monkeypatch.setattr(denoising, "_denoise_rows", unmasked)
    tests._padding(part, load(part))
    assert told.verdicts()["77 tokens, padded against alone"] is not is_planted


def test_a_wait_on_the_engines_thread_is_told_with_its_place(
    bench: Callable[[int], Bench], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = denoising._denoise_rows

    def waiting(weights: Weights, rows: Sequence[Any]) -> Sequence[torch.Tensor]:
        found = plain(weights, rows)
        assert bool(found[0].isfinite().all())  # read from the card
        return found

    monkeypatch.setattr(denoising, "_denoise_rows", waiting)
    tests._kinds(bench(2))
    assert told.verdicts()["where the engine's thread waits for the card"] is False


@pytest.mark.parametrize(("off", "is_ok"), [(0, True), (1, True), (40, False)])
def test_wrong_numbers_of_a_card_fail(bench: Callable[[int], Bench], told: Told, off: int, *, is_ok: bool) -> None:
    pictures = _pictures(off)
    correctness._as_promised(bench(3), [company.distance(*pair) for pair in zip(_pictures(0), pictures, strict=True)])
    assert told.verdicts()["float32, share of pictures that are the CPU's"] is is_ok


def test_pictures_in_half_precision_that_are_others_fail(bench: Callable[[int], Bench], told: Told) -> None:
    apart = [company.distance(*pair) for pair in zip(_pictures(0), _pictures(40), strict=True)]
    correctness._near(bench(3), "float16 against float32", company.HALF_MEDIAN, apart)
    assert told.verdicts()["float16 against float32, median"] is False


def test_an_exact_picture_that_differs_in_another_process_fails(bench: Callable[[int], Bench], told: Told) -> None:
    correctness._exact(bench(3), elsewhere="0" * 64)
    assert told.verdicts() == {"exact, again": True, "exact, in company": True, "exact, in another process": False}


def _pictures(off: int) -> list[Pixels]:
    pixels = np.full((8, 8, 3), 100 + off, np.uint8)
    return [pixels] * 3


class Ended:
    """A process of a trouble that has ended."""

    def __init__(self, status: int | None, said: dict[str, Any] | float | None) -> None:
        self._status, self._said = status, said

    def said(self, _: Bench) -> dict[str, Any] | float | None:
        return self._said

    def status(self, _: Bench) -> int | None:
        return self._status


def ended(status: int | None, **said: Any) -> trouble.Process:
    return cast("trouble.Process", Ended(status, said or None))


@pytest.mark.parametrize(("counted", "logged"), [(0, 1), (1, 0), (0, 0)])
def test_an_error_that_is_swallowed_fails(bench: Callable[[int], Bench], told: Told, counted: int, logged: int) -> None:
    trouble._refused(bench(8), {"pictures": 4, "counted": counted, "logged": logged})
    assert told.verdicts() == {
        "refused, pictures that come out": True, "refused, counted": counted > 0, "refused, logged": logged > 0,
    }  # fmt: skip


@pytest.mark.parametrize(("status", "is_ok"), [(HUNG, True), (0, False), (None, False), (-9, False)])
def test_a_hang_must_end_by_its_own_status(
    bench: Callable[[int], Bench], told: Told, status: int | None, *, is_ok: bool
) -> None:
    trouble._hung(bench(8), cast("trouble.Process", Ended(status, 2.5)))
    assert told.verdicts()["hang, exit status"] is is_ok
    assert told[-1] == Measure(8, "hang, ended after", 2.5, "s")


@pytest.mark.parametrize(
    ("process", "verdicts"),
    [
        (ended(LOST, error="the card was lost: x", is_running=False), (True, True)),
        (ended(0, error="the render failed", is_running=True), (False, False)),
        (ended(LOST, error="the render failed", is_running=False), (False, True)),
        (ended(None), (False, False)),
    ],
)
def test_a_lost_card_must_be_told_and_end_its_process(
    bench: Callable[[int], Bench], told: Told, process: trouble.Process, verdicts: tuple[bool, bool]
) -> None:
    trouble._lost(bench(8), process)
    assert tuple(told.verdicts().values()) == verdicts


@pytest.mark.parametrize(
    ("error", "is_running", "picture", "verdicts"),
    [
        ("OutOfMemory", True, "a picture", [True, True]),
        ("RenderError", False, "", [False, False]),
        ("OutOfMemory", True, "", [True, False]),
        ("", True, "a picture", [False, True]),
    ],
)
def test_a_full_card_must_fail_the_picture_alone(
    bench: Callable[[int], Bench], told: Told, *, error: str, is_running: bool, picture: str, verdicts: list[bool]
) -> None:
    said = {"error": error, "is_running": is_running, "picture": picture}
    trouble._full(bench(8), dict.fromkeys(faults.FULL, said))
    assert list(told.verdicts().values()) == verdicts * 2


def test_a_process_that_says_nothing_fails_everything(bench: Callable[[int], Bench], told: Told) -> None:
    trouble._full(bench(8), None)
    trouble._refused(bench(8), None)
    assert not any(told.verdicts().values())
