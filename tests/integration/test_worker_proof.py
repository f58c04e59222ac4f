"""A card comes up only when it has proved itself, and while it does, a hang can be seen."""

from __future__ import annotations

import re
import sys
import time
from threading import Event
from types import SimpleNamespace

import pytest

from shared.errors import CardError
from tests.support.card_ledger import Ledger
from worker import process
from worker.engine import proof
from worker.engine.loop import limits
from worker.periodic import Periodic
from worker.render import engine_card
from worker.supervisor.gpus import Address
from worker.supervisor.self_watchdog import SelfWatchdog
from worker.supervisor.status_pipe import StatusWriter
from worker.supervisor.watchdog import Watchdog

ADDRESS = Address("cuda:2", "GPU-8932f937", "NVIDIA H200")


@pytest.fixture
def bring_up(settings, sessions, pretended: Ledger):
    watchdog = Watchdog()

    def bring_up() -> engine_card.EngineCard:
        return engine_card.EngineCard(ADDRESS, settings, sessions, lambda: None, watchdog)

    return SimpleNamespace(now=bring_up, watchdog=watchdog)


def test_a_card_is_proved_before_anything_else_and_a_hang_of_it_is_told(bring_up, monkeypatch):
    seen = []

    def prove(on, dtype):
        [stage] = bring_up.watchdog.stages()
        seen.append((on.name, stage.phase, stage.limit_seconds))
        assert stage.is_hung(time.monotonic() + limits.PROOF_SECONDS + 1, 0.0)
        raise CardError("its numbers are off")

    monkeypatch.setattr(proof, "prove", prove)
    with pytest.raises(CardError, match="its numbers are off"):
        bring_up.now()
    assert seen == [("cuda:0", "the proof of its card", limits.PROOF_SECONDS)]
    assert bring_up.watchdog.stages() == ()


def test_a_proof_that_hangs_ends_the_process(bring_up, pretended: Ledger, monkeypatch):
    hangs, ended = Event(), Event()
    told = []

    def on_hang(stage, words):
        told.append(words)
        ended.set()  # in place of the process's end

    monkeypatch.setattr(limits, "PROOF_SECONDS", 0.05)
    monkeypatch.setattr(pretended, "on_kernel", lambda *_: hangs.set() or ended.wait(60))
    watch = Periodic("watch", 0.02, SelfWatchdog(bring_up.watchdog, StatusWriter(), on_hang).run_once)
    watch.start()
    up = bring_up.now()
    watch.stop()
    up.stop()
    assert hangs.is_set()
    assert re.match(r"hung for \d+ s in the proof of its card", told[0])


def test_a_card_that_has_proved_itself_comes_up(bring_up):
    up = bring_up.now()
    assert not up.is_lost
    up.stop()


def test_a_pytorch_that_cannot_be_imported_is_told_as_what_is_wrong_with_the_card(monkeypatch):
    monkeypatch.setitem(sys.modules, "worker.render.engine_card", None)
    with pytest.raises(CardError, match=r"PyTorch cannot be imported: import of worker.render.engine_card halted"):
        process._engine_card(ADDRESS, *(None,) * 4)
