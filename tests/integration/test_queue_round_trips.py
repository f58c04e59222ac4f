"""How often one image's way asks the database: each statement is a wait of every slot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.db import sessions as database
from shared.db.states import WorkerState
from shared.queue import snapshot
from shared.queue.submit import submit
from tests.support.admissions import admitted
from tests.support.checkpoints import NATIVE_SIZE
from tests.support.queueing import Farmhand
from tests.support.rendering import Farm
from tests.support.statements import statements
from tests.support.workers import made, states
from worker.dispatch.claimer import Claimer
from worker.dispatch.slots import Slots
from worker.progress.reporter import Reporter
from worker.render.engine_card import EngineCard
from worker.supervisor.gpus import Address


@pytest.fixture
def hand(sessions):
    return Farmhand(sessions)


def test_an_image_ends_with_one_statement_and_so_does_its_job(sessions, hand, job_factory):
    job = job_factory(count=2)
    worker = hand.worker()
    first, last = worker.claim(), worker.claim()

    with statements(sessions) as of_the_first:
        hand.finish(first)
    with statements(sessions) as of_the_last:
        hand.finish(last)

    assert (len(of_the_first), len(of_the_last)) == (1, 1)
    assert (hand.job(job.id).unfinished, hand.job(job.id).state) == (0, "succeeded")


def test_a_connection_just_used_is_not_asked_whether_it_still_is(sessions, monkeypatch, job_factory):
    job = job_factory()
    asked = pings(sessions, monkeypatch)

    Farmhand(sessions).job(job.id)
    assert asked == []

    monkeypatch.setattr(database, "_TRUSTED_SECONDS", 0.0)
    Farmhand(sessions).job(job.id)
    assert len(asked) == 1


def pings(sessions, monkeypatch):
    dialect, asked = sessions.kw["bind"].dialect, []
    ping = dialect.do_ping
    monkeypatch.setattr(dialect, "do_ping", lambda connection: asked.append(connection) or ping(connection))
    return asked


# From its ticket to its picture, by the card that workers have.


@pytest.fixture
def models(settings, sessions) -> Farm:
    """Checkpoints `base` and `refiner` and the VAE `white` in the models folder, known to the catalogue."""
    models = Farm(settings.models, sessions)
    models.vae("VAE/white", 1.0)
    models.claim()
    return models


@pytest.fixture
def slots(settings, sessions, monkeypatch) -> Iterator[Slots]:
    """The slots of a worker that renders, and that decides on one snapshot for as long as the test takes."""
    monkeypatch.setattr(snapshot, "MAX_AGE_SECONDS", 3600.0)
    with made(settings, sessions) as worker:
        worker.card = EngineCard(Address("cpu:0"), settings, sessions, lambda: None)
        assert worker.state == WorkerState.READY
        yield Slots(worker, Claimer(worker), Reporter(worker.events), on_free=lambda: None, on_lost=lambda: None)
        worker.card.stop()


@pytest.mark.parametrize(
    "asked",
    [
        {"vae": "none"},
        pytest.param({"vae": "white"}, marks=pytest.mark.nightly),
        pytest.param({"vae": "white", "refiner": {"checkpoint": "refiner"}}, marks=pytest.mark.nightly),
        {"vae": "white", "hires": {"checkpoint": "refiner", "scale": 1.5}},
    ],
    ids=str,
)
@pytest.mark.usefixtures("models")
def test_an_image_asks_the_database_twice_whatever_it_is_rendered_with(sessions, slots, asked):
    given = {"checkpoint": "base", "width": NATIVE_SIZE, "height": NATIVE_SIZE, "steps": 2, "count": 2} | asked
    database.transact(sessions, lambda session: recorded(session, given))
    slots.consume(was_passed=False)

    with statements(sessions) as sent:
        slots.consume(was_passed=False)

    assert states(sessions) == ["succeeded"] * 2
    assert len(sent) == 2, "the claim and the finish"


def recorded(session, given):
    submit(session, admitted(session, given))
