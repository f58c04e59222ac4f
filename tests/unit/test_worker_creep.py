"""A worker whose memory grows over the same work starts again; any other goes on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from worker.dispatch import creep
from worker.dispatch.creep import IMAGES, SAMPLES, SETTLED, Creep
from worker.render import host_memory

MIB = 2**20
GIB = 2**30


class Process:
    """A worker of which the test says what it has rendered, holds and takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host_memory, "total_bytes", lambda: 16 * GIB)
        self.images, self.bytes, self.reasons = 0, 2 * GIB, list[str]()
        self.card = SimpleNamespace(host_bytes=0, resident=lambda: self.resident)
        self.resident = ["a"]
        worker = SimpleNamespace(card=self.card)
        self._creep = Creep(worker, lambda: self.images, self.reasons.append, lambda: self.bytes)

    def render(self, images: int, grow: int = 0, after: Callable[[], object] = lambda: None) -> None:
        for _ in range(images):
            self.images += 1
            self.bytes += grow
            self._creep.run_once()
            after()

    def idle(self, heartbeats: int, grow: int) -> None:
        for _ in range(heartbeats):
            self.bytes += grow
            self._creep.run_once()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


def test_memory_that_grows_over_the_same_work_ends_the_worker_once(process: Process) -> None:
    process.render(SETTLED)
    process.render(IMAGES - SETTLED - 1, 20 * MIB)
    assert process.reasons == [], "that is too soon to tell"
    process.render(50)
    assert process.reasons == ["its memory grew by 2.7 GB over 200 images of the same models"]


@pytest.mark.parametrize(
    "grow", [pytest.param(0, id="flat"), pytest.param(4 * MIB, id="less than a tenth of the memory")]
)
def test_a_worker_that_takes_no_more_than_before_goes_on(process: Process, grow: int) -> None:
    process.render(SETTLED)
    process.render(350, grow)
    assert process.reasons == []


def test_images_that_come_and_go_are_no_growth(process: Process) -> None:
    calm = process.bytes
    for cycle in range(60):
        process.bytes = calm + (6 * GIB if cycle % SAMPLES else 0)
        process.render(10)
    assert process.reasons == []


def test_a_new_checkpoint_begins_a_new_level(process: Process) -> None:
    process.render(IMAGES)
    process.resident = ["a", "b"]
    process.bytes += 5 * GIB
    process.render(IMAGES + 50)
    assert process.reasons == []
    process.resident = ["a"]
    process.render(SAMPLES)
    process.bytes += 5 * GIB
    process.render(SAMPLES)
    assert len(process.reasons) == 1, "a is known"


def test_models_in_the_memory_of_the_host_are_no_growth(process: Process) -> None:
    process.render(IMAGES)

    def switch() -> None:
        process.card.host_bytes = 6 * GIB - process.card.host_bytes
        process.bytes = 2 * GIB + process.card.host_bytes

    process.render(IMAGES, after=switch)
    assert process.reasons == []


def test_models_in_pinned_memory_that_is_not_the_processs_own_are_no_growth(process: Process) -> None:
    process.card.host_bytes = 6 * GIB
    process.render(IMAGES)
    process.card.host_bytes = 0
    process.render(IMAGES)
    assert process.reasons == []


def test_what_an_idle_worker_takes_is_not_looked_at(process: Process) -> None:
    process.render(IMAGES)
    process.idle(50, GIB)
    assert process.reasons == []


def test_the_bound_is_a_tenth_of_the_memory_and_a_gigabyte_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    for total, bound in ((4 * GIB, GIB), (64 * GIB, 64 * GIB // 10)):
        monkeypatch.setattr(creep.host_memory, "total_bytes", lambda total=total: total)
        assert Creep(SimpleNamespace(), lambda: 0, lambda _: None)._most_bytes == bound


def test_a_process_knows_what_it_holds() -> None:
    before = host_memory.own_bytes()
    more = bytearray(64 * MIB)
    more[::4096] = b"x" * len(more[::4096])
    assert host_memory.own_bytes() - before > 60 * MIB
    del more
