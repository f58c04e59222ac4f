"""The prefetch: a card hears which checkpoint the queue will have it load next, and of nothing else."""

from __future__ import annotations

import pytest
from redis import RedisError

from shared.models.model_set import ModelSet
from tests.support.stub_card import StubCard
from tests.support.workers import made
from worker.dispatch.claimer import Claimer
from worker.dispatch.prefetcher import Prefetcher


class Keeping(StubCard):
    """A card whose host keeps checkpoints."""

    keeps_checkpoints = True

    def __init__(self, *resident: str) -> None:
        super().__init__()
        self._here = list(resident)
        self.asked: list[str] = []

    def resident(self) -> list[str]:
        return self._here

    def prefetch(self, checkpoint: str) -> None:
        self.asked.append(checkpoint)


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions, slots=3) as mine:
        mine.card = Keeping("a" * 64)
        yield mine


def test_a_card_hears_of_the_first_checkpoint_that_it_does_not_hold(worker, job_factory):
    for checkpoint in "abc":
        job_factory(checkpoint=checkpoint * 64)
    turn = Prefetcher(worker, Claimer(worker)).run_once
    turn()
    turn()
    assert worker.card.asked == ["b" * 64] * 2


def test_it_hears_so_while_all_its_slots_are_busy(worker, job_factory, monkeypatch):
    monkeypatch.setattr(type(worker), "free_slots", 0)
    job_factory(checkpoint="b" * 64)
    Prefetcher(worker, Claimer(worker)).run_once()
    assert worker.card.asked == ["b" * 64]


def test_it_hears_nothing_where_it_needs_no_other(worker, job_factory):
    turn = Prefetcher(worker, Claimer(worker)).run_once
    turn()
    job_factory(checkpoint="a" * 64)
    turn()
    assert worker.card.asked == []


def test_what_is_left_to_others_is_not_read_ahead(worker, job_factory):
    job_factory(checkpoint="b" * 64)
    job_factory(checkpoint="c" * 64)
    claims = Claimer(worker)
    claims.avoid("b" * 64)
    Prefetcher(worker, claims).run_once()
    assert worker.card.asked == ["c" * 64]


@pytest.mark.parametrize("models", [ModelSet(), ModelSet(upscaler="d" * 64)], ids=["no file", "an upscaler"])
def test_pictures_that_are_only_enlarged_hide_no_checkpoint(worker, checkpoint_factory, job_factory, models):
    checkpoint_factory("sharp", sha256="d" * 64, kind="upscaler")
    job_factory(models=models)
    job_factory(checkpoint="b" * 64)
    Prefetcher(worker, Claimer(worker)).run_once()
    assert worker.card.asked == ["b" * 64]


@pytest.mark.parametrize("how", ["drained", "keeps nothing", "Redis and the database are away"])
def test_a_worker_without_use_for_it_asks_nothing(worker, job_factory, monkeypatch, how):
    job_factory(checkpoint="b" * 64)
    claims = Claimer(worker)
    if how == "drained":
        worker.drained = "by hand"
    elif how == "keeps nothing":
        worker.card.keeps_checkpoints = False
    else:

        def away(*_):
            raise RedisError("away")

        monkeypatch.setattr(claims, "next_to_load", away)
    Prefetcher(worker, claims).run_once()
    assert worker.card.asked == []
