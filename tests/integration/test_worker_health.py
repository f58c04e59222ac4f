from __future__ import annotations

import pytest
from sqlalchemy import select

from shared.accounts.scope import EVERYBODYS
from shared.db.tables import Drain, History
from shared.queue import transitions
from tests.support.browsing import look
from tests.support.queueing import Farmhand
from tests.support.workers import images, made, states
from worker.dispatch.claimer import Claimer
from worker.dispatch.heartbeat import Heartbeat
from worker.dispatch.slots import Slots
from worker.progress.reporter import Reporter


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions) as worker:
        yield worker


@pytest.fixture
def slots(worker):
    return Slots(
        worker, Claimer(worker), Reporter(worker.events), on_free=lambda: None, on_lost=lambda: pytest.fail("lost")
    )


@pytest.fixture
def company(sessions):
    """Another worker that takes images."""
    other = Farmhand(sessions).worker()
    other.heartbeat()
    return other


@pytest.fixture
def spoil(slots, checkpoint_factory, job_factory):
    """Spoil a picture of the checkpoint of this name, and ask what became of those before."""

    def spoil(name):
        job_factory(prompt="black", checkpoint=checkpoint_factory(name).sha256)
        slots.consume(was_passed=False)
        slots.health.run_once()

    return spoil


def consume(slots, times=1):
    for _ in range(times):
        slots.consume(was_passed=False)


def reason(sessions, worker):
    with sessions() as session:
        return session.scalar(select(Drain.reason).filter_by(worker=worker.name))


def test_failures_of_several_owners_in_a_row_drain_the_worker(worker, slots, sessions, company, job_factory):
    for owner in ("ann", "bob", "ann"):
        assert worker.drained is None
        job_factory(owner=owner, prompt="break: cuBLAS")
        consume(slots)
    assert "failed here in a row, the last because an error of the farm itself" in worker.drained
    assert f"`farm resume {worker.name}`" in worker.drained
    assert reason(sessions, worker) == worker.drained
    job_factory()
    consume(slots)
    assert states(sessions) == ["failed"] * 3 + ["queued"]


def test_the_last_worker_of_a_pool_stays_and_says_so(worker, slots, sessions, job_factory, client):
    beat = Heartbeat(worker, on_dead=lambda: pytest.fail("declared dead"))
    for owner in ("ann", "bob", "ann"):
        job_factory(owner=owner, prompt="break: cuBLAS")
        consume(slots)
    beat.run_once()
    assert (worker.drained, reason(sessions, worker)) == (None, None)
    told = "sick, but goes on: too few others take pictures of the pool default"
    assert told in look(client, "/workers").text
    job_factory()
    consume(slots)
    assert states(sessions) == ["failed"] * 3 + ["succeeded"]


def test_another_trouble_of_a_worker_that_is_not_sick_stays(worker, slots):
    worker.trouble = "starts again soon: its memory grew"
    slots.health.run_once()
    assert worker.trouble == "starts again soon: its memory grew"


def test_a_worker_that_stayed_says_so_for_an_hour_and_logs_it_once(worker, slots, job_factory, monkeypatch, capsys):
    for owner in ("ann", "bob") * 3:
        job_factory(owner=owner, prompt="break: cuBLAS")
        consume(slots)
    assert capsys.readouterr().out.count("too few others take images") == 1
    slots.health.run_once()
    assert worker.phase == worker.trouble is not None
    monkeypatch.setattr("worker.dispatch.health._HOUR_SECONDS", -1.0)
    slots.health.run_once()
    assert worker.trouble is None


def test_a_worker_that_stayed_drains_itself_when_others_are_back(worker, slots, sessions, job_factory):
    def fail():
        for owner in ("ann", "bob", "ann"):
            job_factory(owner=owner, prompt="break: cuBLAS")
            consume(slots)

    fail()
    assert worker.drained is None
    Farmhand(sessions).worker().heartbeat()
    fail()
    assert worker.drained == reason(sessions, worker) is not None
    assert worker.trouble is None


def test_failures_of_one_owner_or_with_a_picture_between_them_do_not(worker, slots, job_factory):
    for owner, prompt in (("ann", "break: x"), ("ann", "break: x"), ("ann", "break: x"), ("ann", "sea")):
        job_factory(owner=owner, prompt=prompt)
        consume(slots)
    for owner, prompt in (("bob", "break: x"), ("ann", "break: x"), ("bob", "sea"), ("ann", "break: x")):
        job_factory(owner=owner, prompt=prompt)
        consume(slots)
    assert worker.drained is None


def test_what_images_are_to_blame_for_says_nothing_of_the_worker(worker, slots, job_factory):
    for owner in ("ann", "bob", "cid", "dan"):
        job_factory(owner=owner, prompt="fail: clip skip 12 is too deep")
        consume(slots)
    assert worker.drained is None


def test_a_black_picture_is_left_to_another_worker_once(worker, slots, sessions, company, job_factory):
    job = job_factory(prompt="black")
    consume(slots, 2)  # the second ticket leaves it alone
    [image] = images(sessions)
    assert (image.state, image.attempt, image.strikes) == ("queued", 1, 0)
    with sessions() as session:
        told = session.scalars(select(History.detail).filter_by(job_id=job.id, event="handed back")).all()
    assert told == ["the picture came out black"]


def test_a_black_picture_keeps_no_other_owner_waiting(worker, slots, sessions, company, job_factory):
    job_factory(owner="ann", prompt="black")
    consume(slots)
    job_factory(owner="bob", prompt="sea")
    consume(slots)
    assert [(image.owner, image.state) for image in images(sessions)] == [("ann", "queued"), ("bob", "succeeded")]


def test_a_black_picture_fails_where_there_is_no_other_worker(worker, slots, sessions, job_factory):
    job_factory(prompt="black")
    consume(slots)
    [image] = images(sessions)
    assert (image.state, image.reason) == ("failed", "the picture came out black")


def test_a_black_picture_fails_where_another_worker_gave_one_too(worker, slots, sessions, company, job_factory):
    job_factory(prompt="black")
    first = company.claim()
    Farmhand(sessions).run(_hand_back, first)
    consume(slots)
    assert [image.reason for image in images(sessions)] == ["the picture came out black"]


def test_black_pictures_that_come_out_right_elsewhere_drain_the_worker(worker, slots, sessions, company, spoil):
    hand = Farmhand(sessions)
    for name in ("first", "second"):
        spoil(name)
        assert worker.drained is None  # it is not known yet
        hand.finish(company.claim())
    slots.health.run_once()
    assert "came out black or without numbers here and right on other workers" in worker.drained
    assert reason(sessions, worker) == worker.drained


def test_a_black_picture_whose_job_is_deleted_is_asked_about_no_more(worker, slots, sessions, company, spoil):
    spoil("first")
    [image] = images(sessions)
    Farmhand(sessions).run(transitions.cancel, EVERYBODYS, image.job_id)
    Farmhand(sessions).run(transitions.delete, EVERYBODYS, image.job_id)
    slots.health.run_once()
    assert slots.health._suspects == set()


def test_black_pictures_that_are_black_everywhere_do_not(worker, slots, sessions, company, spoil):
    hand = Farmhand(sessions)
    for name in ("first", "second", "third"):
        spoil(name)
        hand.run(_fail, company.claim())
    slots.health.run_once()
    assert worker.drained is None


def _hand_back(session, claim):
    transitions.hand_back(
        session, claim.worker_id, {claim.image_id: claim.attempt}, reason="the picture came out black"
    )


def _fail(session, claim):
    transitions.fail(session, claim, "the picture came out black")
