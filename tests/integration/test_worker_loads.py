"""Loads of a worker with a card, as far as a pretended one shows them: where from, in which order, and what is left."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import structlog.testing

from shared.errors import Cancelled, ModelFileError, RenderError
from tests.support.card_ledger import Ledger
from tests.support.rendering import Farm, Seen, paint
from tests.support.waiting import until
from worker.engine.loading import load as checkpoints
from worker.engine.loading.host_cache import HostCache
from worker.engine.loop.engine import Engine
from worker.engine.requests import Work
from worker.in_flight import Cancellation
from worker.progress import preview_queue
from worker.progress.reporter import ImageProgress
from worker.render.engine_card import EngineCard
from worker.render.model_cache import Model
from worker.supervisor.gpus import Address

MIB = 2**20
SECONDS = 10
HOST_MIB = 64  # that the process may grow by over many loads; each holds 8


@pytest.fixture
def ledger(pretended: Ledger) -> Iterator[Ledger]:
    gc.collect()  # the cards of the tests before
    pretended.clear()
    yield pretended
    assert pretended.errors == []


@pytest.fixture
def start(settings, sessions, ledger, monkeypatch) -> Iterator[Callable[..., EngineCard]]:
    """Bring up a worker's card with some settings; what it would prepare in idle time is left out."""
    monkeypatch.setattr(Engine, "warm_up", lambda *_: None)
    cards: list[EngineCard] = []

    def start(**changed: object) -> EngineCard:
        given = {"resident_checkpoints": 1, "preview_steps": 1, "host_cache_bytes": 2**30} | changed
        cards.append(EngineCard(Address("cuda:0", "GPU-1"), settings.model_copy(update=given), sessions, lambda: None))
        return cards[-1]

    yield start
    for card in cards:
        card.stop()


@pytest.fixture
def claims(settings, sessions):
    """An image of each of two checkpoints."""
    farm = Farm(settings.models, sessions)
    base = farm.claim()
    stored = {**base.stored, "steps": 1, "cfg_scale": 1.0}
    return [replace(base, checkpoint=sha256, stored=stored) for sha256 in farm.checkpoints()]


def loads_of(logs) -> list[tuple[str, str]]:
    return [(one["name"], one["origin"]) for one in logs if one["event"] == "model loaded"]


def test_what_left_the_card_comes_back_from_the_hosts_memory(start, claims, ledger):
    card, (base, other) = start(), claims
    with structlog.testing.capture_logs() as logs:
        first = paint(card, base)
        until(lambda: not card._loads._loader.has_spare)
        read = card.load_seconds
        paint(card, other)
        until(lambda: not card._loads._loader.has_spare)
        seen = Seen()
        again = card.render(base, seen.watch(base), Cancellation()).pixels
    assert (first == again).all()
    assert seen.told[0].phase == "loading checkpoint base from memory, about 1 s"
    assert [origin for _, origin in loads_of(logs)][2] == "host cache"
    assert {origin for _, origin in loads_of(logs)[:2]} <= {"disk", "page cache"}
    assert read is not None
    assert card.load_seconds != read, "the other one's, which was read from its file as well"
    assert card.resident() == [base.checkpoint]
    assert ledger.waits_of("engine") == []


def test_what_a_load_keeps_the_host_from_keeping_is_kept_after_it(start, claims, monkeypatch):
    card, gate, keep = start(resident_checkpoints=2), Event(), HostCache.keep

    def late(*given):
        while not gate.wait(0.01):
            yield
        yield from keep(*given)

    monkeypatch.setattr(HostCache, "keep", late)
    for claim in claims:
        paint(card, claim)
    gate.set()
    until(lambda: not card._loads._loader.has_spare)
    assert all((claim.checkpoint, card._dtype) in card._loads.cache for claim in claims)


def test_what_comes_next_is_read_ahead_once_and_only_while_nothing_is_wanted(start, claims, ledger):
    card, (base, other) = start(), claims
    assert card.keeps_checkpoints
    paint(card, base)
    until(lambda: not card._loads._loader.has_spare)
    before = ledger.live
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            card.prefetch(other.checkpoint)
            until(lambda: not card._loads._loader.has_spare)
        assert abs(ledger.live - before) < MIB // 4, "it takes nothing of the card"
        paint(card, other)
    events = [one["event"] for one in logs]
    assert events.count("checkpoint prefetched") == 1
    assert loads_of(logs) == [("refiner", "host cache")]


def test_a_prefetch_gives_way_to_the_load_that_is_wanted(start, claims):
    card, (base, other) = start(), claims
    loader = card._loads._loader
    loader.run(lambda: card.prefetch(other.checkpoint))
    paint(card, base)
    assert (other.checkpoint, card._dtype) not in card._loads.cache or not loader.has_spare
    card.prefetch(other.checkpoint)
    until(lambda: (other.checkpoint, card._dtype) in card._loads.cache)


def test_a_file_that_cannot_be_prefetched_is_left_alone_for_a_while(start, claims, settings):
    card, (base, _) = start(), claims
    with structlog.testing.capture_logs() as logs:
        for sha256 in ("0" * 64, "0" * 64, base.checkpoint):
            card.prefetch(sha256)
            until(lambda: not card._loads._loader.has_spare)
    told = [one["event"] for one in logs if "prefetched" in one["event"]]
    assert told == ["checkpoint not prefetched", "checkpoint prefetched"]


def test_a_card_without_a_host_cache_keeps_nothing_there(start, claims):
    card, (base, other) = start(host_cache_bytes=0), claims
    assert not card.keeps_checkpoints
    card.prefetch(other.checkpoint)
    with structlog.testing.capture_logs() as logs:
        for claim in (base, other, base):
            paint(card, claim)
    assert "host cache" not in [origin for _, origin in loads_of(logs)]
    assert card._loads.cache.bytes == 0


def test_a_cpu_keeps_no_second_copy(settings, sessions):
    card = EngineCard(Address("cpu:0"), settings, sessions, lambda: None)
    assert not card.keeps_checkpoints
    card.prefetch("0" * 64)
    assert not card._loads._loader.has_spare
    card.stop()


def test_a_small_card_never_holds_the_old_and_the_new_checkpoint(start, claims, ledger, monkeypatch):
    card, (base, other) = start(resident_checkpoints=3, host_cache_bytes=0), claims
    paint(card, base)
    one = card._residency.bytes_of([Model("checkpoint", base.checkpoint)])
    monkeypatch.setattr(ledger, "capacity", ledger.live + round(1.2 * one))  # a chunk of so small a file is the file
    tries, load = [], checkpoints.load
    monkeypatch.setattr(checkpoints, "load", lambda *given: tries.append(given[0].stem) or load(*given))
    for claim in (other, base):
        paint(card, claim)
        assert card.resident() == [claim.checkpoint]
    assert len(tries) == 2, "the sizes are known beforehand: no load was tried that had to fail"


def test_an_image_that_is_cancelled_while_its_load_queues_ends_at_once_and_loads_nothing(start, claims):
    card, (base, other), cancel, gate = start(), claims, Cancellation(), Event()
    with structlog.testing.capture_logs() as logs, ThreadPoolExecutor(1) as slot:
        card._loads._loader.ask(lambda: gate.wait(SECONDS))
        seen = Seen()
        waiting = slot.submit(card.render, other, seen.watch(other), cancel)
        until(card.phase)
        cancel.set()
        with pytest.raises(Cancelled, match="waited for its checkpoint"):
            waiting.result(SECONDS)
        assert not gate.is_set()
        gate.set()
        paint(card, base)
    assert [name for name, _ in loads_of(logs)] == ["base"]


# Again and again.


def resident_bytes() -> int:
    """Return what this process holds of the machine's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("cycles", [9, pytest.param(200, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])])
def test_checkpoints_that_come_and_go_leave_nothing_on_card_or_host(start, claims, ledger, monkeypatch, cycles):
    """With previews, and with pictures and loads that fail: one checkpoint at a time, of two."""
    monkeypatch.setattr(preview_queue, "SECONDS", 0.0)
    monkeypatch.setattr(preview_queue, "SHARE", 1000.0)
    before = ledger.live
    card, stage = start(), preview_queue.PreviewQueue(lambda *_: None)
    stage.start()
    pinned, host = [], []
    for cycle in range(cycles):
        claim, seen = claims[cycle % 2], Seen()
        watch = ImageProgress(claim, seen.told.append, stage.put)
        if cycle % 3 == 1:
            fails(card, claim, watch, monkeypatch)
        else:
            card.render(claim, watch, Cancellation())
        one = card._residency.bytes_of([Model("checkpoint", claim.checkpoint)])
        until(lambda: not card._loads._loader.has_spare)
        until(
            lambda one=one: ledger.live < before + one + MIB // 4, what="one checkpoint, and no more, to be on the card"
        )
        pinned.append(sum(ledger.pinned.values()))
        host.append(resident_bytes())
    stage.stop()
    assert max(pinned[4:]) == min(pinned[4:])
    assert host[-1] - host[4] <= HOST_MIB * MIB
    card._model_cache.drop_unused()
    until(lambda: ledger.live < before + MIB // 4)


def fails(card, claim, watch, monkeypatch) -> None:
    """Have a load fail, and then a picture."""

    def torn(*_):
        raise ModelFileError("torn")

    def broken(params, kit):
        yield Work(lambda: 1 / 0)

    with monkeypatch.context() as patch:
        patch.setattr("worker.engine.loading.load.hand_over", torn)
        with pytest.raises(RenderError, match="torn"):
            card.render(claim, watch, Cancellation())
    with monkeypatch.context() as patch:
        patch.setattr("worker.render.engine_card.render", broken)
        with pytest.raises(RenderError):
            card.render(claim, watch, Cancellation())
