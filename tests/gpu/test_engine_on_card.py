"""The engine on a card: row counts, warm-up, lack of memory, failures, and what it leaves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, current_thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shared.errors import OutOfMemory, RenderError
from shared.params.render import RenderParams
from tests.support.checkpoints import NATIVE_SIZE, write_tiny
from tests.support.conditioned import term, with_empty_caches
from tests.support.waiting import until
from worker.engine import devices, transfers
from worker.engine.answers import denoising
from worker.engine.answers.calls import FAILED, FULL
from worker.engine.answers.denoising import denoise
from worker.engine.answers.embedding import embed
from worker.engine.architectures.conditioning import Conditioning
from worker.engine.architectures.weights import Weights
from worker.engine.loading import load
from worker.engine.loop.engine import Engine
from worker.engine.loop.runs import Run
from worker.engine.pipelines.inputs import Kit
from worker.engine.pipelines.render import Picture, text_to_image
from worker.engine.requests import Denoise, Embed, Work

pytestmark = pytest.mark.gpu

SECONDS = 60
CARD = "cuda:0"
FEW = 8  # rows that a call may have at most where every count of them is prepared
needs_pretended = pytest.mark.skipif(torch.version.cuda is not None, reason="needs a card whose memory can be set")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    path: Path = write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")
    return load.load(path, devices.device(CARD), torch.float16)


@contextmanager
def started(**options: Any) -> Iterator[Engine]:
    engine = Engine(devices.device(CARD), **options)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def card() -> Iterator[Engine]:
    with started() as engine:
        yield engine


Rows = Callable[[Weights, Sequence[Any]], Sequence[Tensor]]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the U-Net has had, as they come."""
    made: list[int] = []
    original: Rows = denoising._denoise_rows

    def counted(weights: Weights, rows: Sequence[Any]) -> Sequence[Tensor]:
        made.append(len(rows))
        return original(weights, rows)

    monkeypatch.setattr(denoising, "_denoise_rows", counted)
    return made


def picture(engine: Engine, weights: Weights, seed: int = 1, **changes: Any) -> Run:
    params = RenderParams(
        prompt="sea", checkpoint="tiny", width=NATIVE_SIZE, height=NATIVE_SIZE, steps=4, seed=seed
    ).model_copy(update=changes)
    return engine.render(text_to_image(params, Kit(weights)))


def distance(one: Picture, other: Picture) -> float:
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


# Row counts.


def test_pictures_that_join_and_leave_share_calls_of_few_row_counts(
    card: Engine, half: Weights, counts: list[int]
) -> None:
    runs = [picture(card, half, seed, steps=2 + seed % 3, cfg_scale=1.0 if seed % 5 == 0 else 7.0) for seed in range(8)]
    for run in runs:
        assert run.result(SECONDS).std() > 1
    assert set(counts) <= set(devices.device(CARD).ladder)
    assert max(counts) >= 8, "they did share calls"


def test_a_picture_of_three_terms_is_cut_into_row_counts_of_the_ladder(
    card: Engine, half: Weights, counts: list[int]
) -> None:
    picture(card, half, prompt="sea AND moon", steps=2).result(SECONDS)
    assert counts == [2, 1] * 2


# Contexts of several lengths.


def context(weights: Weights, text: str) -> Tensor:
    (found,) = embed([Embed(weights, weights.tokenizer.chunks(text))], is_exact=True)
    assert isinstance(found, Conditioning)
    return found.context


def latent(seed: int = 3) -> Tensor:
    noise = torch.randn((4, 8, 8), generator=torch.Generator().manual_seed(seed))
    return transfers.to_device(noise, devices.device(CARD))


def asked(weights: Weights, words: Tensor, x: Tensor) -> Denoise:
    return Denoise(weights, x, 2.0, (term(1.0, words),), 1, 1)


def answered(*requests: Denoise) -> Tensor:
    """What the first of some requests in one call is answered with."""
    found = denoise(requests, is_exact=False)[0]
    assert isinstance(found, Tensor)
    return found


def apart(one: Tensor, other: Tensor, x: Tensor) -> float:
    """The distance of two answers, as a share of what the network says."""
    return float(((one - other).norm() / (other - x).norm()).cpu())


@pytest.mark.parametrize(
    "chunks",
    [(1, 2), (3, 1), *(pytest.param(chunks, marks=pytest.mark.nightly) for chunks in ((2, 1), (1, 3), (1, 5), (5, 1)))],
)
def test_a_context_that_is_padded_and_masked_says_what_it_says_unpadded(half: Weights, chunks: tuple[int, int]) -> None:
    """In half precision, beside another context, against a call of two such rows: what pads it would say much."""
    own, others = (context(half, "moon " * (75 * count - 5)) for count in chunks)
    x = latent()
    request = asked(half, own, x)
    unpadded = answered(request, request)
    assert apart(answered(request, asked(half, others, latent(4))), unpadded, x) < 0.02
    unmasked = asked(half, torch.cat([own, torch.zeros_like(own)]), x)
    assert apart(answered(unmasked, unmasked), unpadded, x) > 0.1


# Warm-up.


def few(weights: Weights, most: int = FEW) -> list[int]:
    """Return the row counts that an engine prepares whose calls have no more than `most`."""
    return [rows for rows in weights.device.ladder if rows <= most]


@pytest.mark.parametrize(
    "most", [FEW, pytest.param(None, marks=pytest.mark.nightly)], ids=["few", "as many as the card takes"]
)
def test_after_a_load_the_ladder_is_prepared_while_nothing_is_rendered(
    half: Weights, counts: list[int], pretended: Any, most: int | None
) -> None:
    ladder = few(half, most or half.device.row_budget)
    pretended.clear()
    with started(row_budget=most) as card:
        card.warm_up(half)
        until(lambda: len(counts) == len(ladder))
        assert counts == ladder
        assert pretended.waits_of("engine") == []
        before = list(counts)
        card.warm_up(with_empty_caches(half, 8))  # another checkpoint of the same kind
        picture(card, half).result(SECONDS)
        assert counts[len(before) :] == [2] * 4, "what is prepared is not prepared again"


def test_a_picture_that_comes_during_warm_up_waits_for_one_call_at_most(
    half: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Rows = denoising._denoise_rows
    made: list[int] = []
    begun, go_on = Event(), Event()

    def held(weights: Weights, rows: Sequence[Any]) -> Sequence[Tensor]:
        made.append(len(rows))
        if len(made) == 3:
            begun.set()
            assert go_on.wait(SECONDS)
        return original(weights, rows)

    monkeypatch.setattr(denoising, "_denoise_rows", held)
    with started(row_budget=FEW) as engine:
        engine.warm_up(half)
        assert begun.wait(SECONDS)
        run = picture(engine, half, steps=3)
        go_on.set()
        run.result(SECONDS)
        until(lambda: len(made) >= len(few(half)) + 3)
    assert made[:3] == [1, 2, 4]
    assert made[3:6] == [2, 2, 2], "the picture's steps come next, without a call between them"
    assert made[6:] == few(half)[3:], "and then the rest of the ladder"


def test_each_call_of_a_warm_up_is_told_and_goes_on_in_the_block_that_was_given(half: Weights) -> None:
    phases: list[str] = []
    within: list[str] = []

    @contextmanager
    def block() -> Iterator[None]:
        within.append(current_thread().name)
        yield

    with started(on_phase=lambda phase, _: phases.append(phase), row_budget=4) as engine:
        engine.warm_up(half, block)
        until(lambda: phases[-1:] == ["idle"] and "warm-up" in phases)
    calls = 2 + len([1, 2, 4])  # the words, the decode and the row counts
    assert phases.count("warm-up") == len(within) == calls
    assert set(within) == {"engine cuda:0"}


def test_a_checkpoint_that_leaves_takes_its_warm_up_along_and_the_next_is_prepared(
    half: Weights, counts: list[int]
) -> None:
    with started(row_budget=FEW) as engine:
        leaves = with_empty_caches(half, 8)
        hold, go_on = Event(), Event()
        busy = engine.render(waits_for(hold, go_on))
        assert hold.wait(SECONDS)
        engine.warm_up(leaves)
        del leaves
        go_on.set()
        busy.result(SECONDS)
        picture(engine, half, steps=1).result(SECONDS)
        assert set(counts) == {2}
        engine.warm_up(half)
        until(lambda: set(few(half)) <= set(counts))


def test_what_is_too_much_for_a_card_is_not_prepared_and_harms_nobody(
    half: Weights, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with room_for(6, monkeypatch), started(halves=True, row_budget=16) as engine:
        engine.warm_up(half)
        until(lambda: counts == [1, 2, 4, 6])
        assert picture(engine, half, steps=1).result(SECONDS).std() > 1
        assert counts == [1, 2, 4, 6, 2], "nothing above eight rows, which failed"


EIGHT_ROWS = "sea AND moon AND sun AND sky AND hill AND tree AND road"  # and the negative prompt


def test_pictures_do_not_try_what_had_no_room_in_a_warm_up_which_is_counted(
    half: Weights, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with room_for(6, monkeypatch) as full, started(halves=True, row_budget=16) as engine:
        engine.warm_up(half)
        until(lambda: full == [8] and engine.broken_calls == {FULL: 1, FAILED: 0})
        picture(engine, half, prompt=EIGHT_ROWS, steps=1).result(SECONDS)
    assert full == [8]
    assert counts == [1, 2, 4, 6, 6, 2]


def test_a_warm_up_does_not_try_what_had_no_room_for_a_picture(
    half: Weights, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str] = []
    with (
        room_for(6, monkeypatch) as full,
        started(halves=True, row_budget=16, on_phase=lambda phase, _: phases.append(phase)) as engine,
    ):
        picture(engine, half, prompt=EIGHT_ROWS, steps=1).result(SECONDS)
        engine.warm_up(half)
        until(lambda: "warm-up" in phases and phases[-1] == "idle")
    assert full == [8], "for the picture"
    assert counts == [4, 4, 1, 2, 4, 6]


def waits_for(hold: Event, go_on: Event) -> Iterator[Any]:
    yield Work(hold.set)
    yield Work(lambda: go_on.wait(SECONDS))


# Lack of memory.


@contextmanager
def room_for(rows: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A card that has no room for more rows in a call; yields how often there was none."""
    original: Rows = denoising._denoise_rows
    full: list[int] = []

    def answer(weights: Weights, asked: Sequence[Any]) -> Sequence[Tensor]:
        if len(asked) > rows:
            full.append(len(asked))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(weights, asked)

    with monkeypatch.context() as patched:
        patched.setattr(denoising, "_denoise_rows", answer)
        yield full


def test_rows_that_have_no_room_are_tried_once_and_the_pictures_come_out(
    half: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(halves=True) as engine:
        expected = picture(engine, half, steps=2).result(SECONDS)
        with room_for(4, monkeypatch) as full:
            runs = [picture(engine, half, seed, steps=2) for seed in range(1, 7)]
            found = [run.result(SECONDS) for run in runs]
        assert len(full) <= 3
        assert engine.broken_calls == {FULL: len(full), FAILED: 0}
    assert distance(found[0], expected) < 2


@needs_pretended
def test_a_card_that_is_full_drops_what_nobody_uses_before_a_picture_fails(half: Weights, pretended: Any) -> None:
    idle: list[Tensor] = []

    def drop() -> bool:
        had = bool(idle)
        idle.clear()
        return had

    with started(halves=True, on_full=drop) as engine:
        picture(engine, half, steps=1).result(SECONDS)
        before, pretended.peak = pretended.live, pretended.live
        picture(engine, half, steps=1).result(SECONDS)
        needed = pretended.peak - before
        capacity = pretended.capacity
        idle.append(torch.zeros(8 * needed, dtype=torch.uint8, device=CARD))
        pretended.capacity = pretended.live + needed // 4
        try:
            assert picture(engine, half, steps=1).result(SECONDS).std() > 1
            assert idle == []
            pretended.capacity = pretended.live + needed // 4
            with pytest.raises(OutOfMemory):
                picture(engine, half, steps=1).result(SECONDS)
        finally:
            pretended.capacity = capacity
        assert picture(engine, half, seed=2, steps=1).result(SECONDS).std() > 1


# Failures.


def fails(weights: Weights, where: str) -> Iterator[Any]:
    x = torch.zeros(4, 8, 8, device=CARD)
    words = torch.zeros(77, 1 if where == "in a call" else 64, device=CARD, dtype=weights.dtype)
    denoised = yield Denoise(weights, x, 1.0, (term(1.0, words),), 1, 1)
    if where == "between calls":
        raise LookupError("its own trouble")
    (denoised + x).to("cpu").numpy().nothing  # noqa: B018 - an error that holds what it was raised over


@needs_pretended
@pytest.mark.parametrize("where", ["in a call", "between calls", "in a read"])
def test_a_picture_that_failed_leaves_nothing_on_the_card(half: Weights, pretended: Any, where: str) -> None:
    def failed(engine: Engine) -> None:
        run = engine.render(fails(half, where))
        with pytest.raises(RenderError):
            run.result(SECONDS)

    gc.collect()
    before = pretended.live
    gc.disable()
    try:
        with started() as engine:
            failed(engine)
        assert pretended.live == before
    finally:
        gc.enable()


# The thread.


def test_the_threads_of_an_engine_speak_to_its_card_and_without_graphs_for_each_shape(
    half: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda to: told.append((current_thread().name, str(to))))
    torch.backends.cuda.enable_cudnn_sdp(enabled=True)
    with started() as engine:
        picture(engine, half).result(SECONDS)
    assert ("engine cuda:0", CARD) in told
    assert any(name.startswith("engine work") for name, _ in told)
    assert {to for _, to in told} == {CARD}
    assert not torch.backends.cuda.cudnn_sdp_enabled()
