"""The real card of a worker: an engine with a checkpoint from the catalogue, as small as they come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from shared import catalogue
from shared.catalogue import Inspection
from shared.database import transact
from shared.errors import ModelFileError
from shared.events import Progress
from shared.params import RenderParams
from shared.queue.claim import Claim
from shared.scan import scan
from tests.checkpoints import NATIVE_SIZE, write_tiny
from tests.waiting import until
from worker.card import EngineCard
from worker.cards import Address
from worker.carried import Cancellation
from worker.engine import checkpoints
from worker.pictures import Pixels
from worker.progress import Watch

LOADING = re.compile(r"loading checkpoint tiny, about \d+ s")


@pytest.fixture
def claim(settings, sessions) -> Claim:
    """An image of a checkpoint that lies in the models folder."""
    write_tiny(settings.models / "tiny.safetensors")
    seen = scan(settings.models, [], lambda _: Inspection("checkpoint", "sd1", NATIVE_SIZE))
    transact(sessions, lambda session: catalogue.record(session, seen))
    params = RenderParams(prompt="sea", checkpoint="tiny", width=NATIVE_SIZE, height=NATIVE_SIZE, steps=5, seed=7)
    return Claim(
        image_id=5, job_id=17, index=0, attempt=1, owner="local", checkpoint=seen[0].sha256, cost=1, params=params,
        worker_id=3,
    )  # fmt: skip


class Seen:
    """What a watcher is told of an image."""

    def __init__(self) -> None:
        self.told: list[Progress] = []
        self.previews: list[Callable[[], Pixels]] = []

    def watch(self, claim: Claim) -> Watch:
        return Watch(claim, self.told.append, self._show)

    def _show(self, _: Claim, make: Callable[[], Pixels], done: Callable[[], None]) -> None:
        self.previews.append(make)
        done()


@pytest.fixture
def phases() -> list[str]:
    """What the card did whenever it said that something had changed."""
    return []


@pytest.fixture
def card(settings, sessions, phases) -> Iterator[EngineCard]:
    settings = settings.model_copy(update={"preview_steps": 2})
    card = EngineCard(Address("cpu:0"), settings, sessions, lambda: phases.append(card.phase()))
    yield card
    card.stop()


def test_a_claim_becomes_a_picture_and_whoever_watches_is_told_how(card, claim, phases):
    seen = Seen()
    picture = card.render(claim, seen.watch(claim), Cancellation())
    assert picture.shape == (NATIVE_SIZE, NATIVE_SIZE, 3)
    assert LOADING.fullmatch(phases[0])
    assert card.resident() == [claim.checkpoint]

    loading, *rest = seen.told
    assert LOADING.fullmatch(loading.phase)
    assert [(told.phase, told.step, told.steps) for told in rest] == [("steps", step, 5) for step in range(6)]
    assert [make().shape for make in seen.previews] == [(8, 8, 3)] * 2  # after steps 2 and 4: the 5th is the picture


def test_a_card_that_loads_two_checkpoints_tells_of_the_other_when_one_is_there(
    card, claim, settings, sessions, monkeypatch
):
    (settings.models / "other.safetensors").write_bytes(b"weights")
    seen = scan(settings.models, [], lambda _: Inspection("checkpoint", "sd1", NATIVE_SIZE))
    transact(sessions, lambda session: catalogue.record(session, seen))
    gates = {one.name: Event() for one in seen}
    started = []

    def load(path, *_):
        started.append(path.stem)
        gates[path.stem].wait(10)
        raise ModelFileError("no weights")

    monkeypatch.setattr(checkpoints, "load", load)
    with ThreadPoolExecutor() as slots:
        renders = {}
        for one in seen:
            mine = replace(claim, checkpoint=one.sha256)
            renders[one.name] = slots.submit(card.render, mine, Seen().watch(mine), Cancellation())
        until(lambda: len(started) == 2)
        for name, is_loading in (("tiny", True), ("other", False)):
            gates[name].set()
            assert isinstance(renders[name].exception(10), ModelFileError)
            assert card.phase().startswith("loading checkpoint other") is is_loading


def test_a_resident_checkpoint_is_not_loaded_again(card, claim):
    card.render(claim, Seen().watch(claim), Cancellation())
    seen = Seen()
    card.render(claim, seen.watch(claim), Cancellation())
    assert seen.told[0].phase == "steps"
