"""Taking workers out of the farm and putting them back: the queue, the API, the page, and real workers."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from shared.database import transact
from shared.errors import NotFound
from shared.queue import drains, snapshot
from shared.tables import History, Worker
from tests.integration.browsing import look, send
from tests.integration.queueing import Farmhand
from tests.waiting import until
from tests.workers import ready, started, states


@pytest.fixture
def hand(sessions):
    return Farmhand(sessions)


def drain(sessions, wanted, reason="new fan"):
    transact(sessions, lambda session: drains.drain(session, drains.matching(session, wanted), reason))


def resume(sessions, wanted):
    transact(sessions, lambda session: drains.resume(session, drains.matching(session, wanted)))


def drained(sessions):
    with sessions() as session:
        return list(session.scalars(select(Worker).where(Worker.state == "drained")))


# The queue.


def test_a_drained_worker_claims_nothing_and_nobody_counts_on_it(hand, sessions, job_factory):
    job_factory(count=3)
    worker = hand.worker()
    worker.beat()
    claim = worker.claim()
    drain(sessions, worker.name)
    assert worker.claim() is None
    [seen] = transact(sessions, snapshot.take).farm.workers
    assert not seen.has_room
    held = {claim.image_id: claim.attempt}
    assert worker.beat(held).drained == "new fan"
    assert worker.beat(held).drop == ()  # what it has it may finish
    resume(sessions, worker.name)
    assert worker.beat(held).drained is None
    assert worker.claim() is not None


def test_a_drain_outlives_a_restart(hand, sessions, job_factory):
    job_factory()
    before = hand.worker()
    drain(sessions, before.name)
    before.bury(strike=False)
    again = Farmhand(sessions).worker()
    assert again.name == before.name
    assert again.claim() is None
    assert again.beat().drained == "new fan"


def test_a_pattern_means_several_and_history_tells_of_them(hand, sessions):
    first, second = hand.worker(), hand.worker()
    drain(sessions, "host/*")
    drain(sessions, "*:2", "dust")
    with sessions() as session:
        told = session.execute(select(History.worker, History.detail).filter_by(event="drained")).all()
    assert told == [(first.name, "new fan"), (second.name, "new fan"), (second.name, "dust")]


def test_a_worker_that_is_not_there_is_told_with_those_that_are(hand, sessions):
    worker = hand.worker()
    with pytest.raises(NotFound, match=f"There is no worker 'nobody'. There are {worker.name}"):
        drain(sessions, "nobody")


# The API and the page.


def test_a_drain_takes_any_text_as_its_reason(client, hand, sessions):
    worker = hand.worker()
    drain(sessions, worker.name, "cannot read \udcff\x00.safetensors" + "x" * 5000)
    assert worker.beat().drained.startswith("cannot read ??.safetensors")
    [told] = client.post(f"/api/v1/workers/{worker.name}/drain?reason=dust%00").get_json()["workers"]
    assert told["drained"] == "dust?"


def test_workers_are_drained_and_resumed_over_http(client, hand):
    worker = hand.worker()
    worker.beat()
    [told] = client.post(f"/api/v1/workers/{worker.name}/drain?reason=dust").get_json()["workers"]
    assert (told["name"], told["state"], told["drained"]) == (worker.name, "drained", "dust")
    [told] = client.post("/api/v1/workers/*/resume").get_json()["workers"]
    assert (told["state"], told["drained"]) == ("ready", None)
    missing = client.post("/api/v1/workers/host/cpu:7/drain")
    assert missing.status_code == 404
    assert f"There are {worker.name}." in missing.get_json()["detail"]


def test_the_page_drains_and_resumes_by_a_button(client, hand):
    worker = hand.worker()
    worker.beat()
    assert "Drain " + worker.name in look(client, "/workers").text
    assert send(client, "/workers/drain", worker=worker.name).status_code == 303
    shown = look(client, "/workers").text
    assert "takes nothing new: by hand" in shown
    assert f"Resume {worker.name}" in shown
    assert "Every worker is drained; nothing new starts until one is resumed: farm resume --all" in shown
    send(client, "/workers/resume", worker=worker.name)
    assert f"Drain {worker.name}" in look(client, "/workers").text
    send(client, "/workers/drain", worker="nobody")
    assert "There is no worker 'nobody'." in look(client, "/workers").text


# Real workers.


def test_a_drained_worker_finishes_what_it_has_and_takes_nothing_new_until_it_is_resumed(
    environ, sessions, job_factory, tmp_path
):
    gate = tmp_path / "gate"
    with started(environ, "--gpus", "cpu", "--slots", "2"):
        [worker] = until(lambda: ready(sessions))
        job_factory(prompt=f"wait for {gate}")
        until(lambda: states(sessions) == ["running"])
        drain(sessions, worker.name)
        until(lambda: drained(sessions))
        job_factory()
        gate.touch()
        until(lambda: states(sessions) == ["succeeded", "queued"])
        assert [row.id for row in drained(sessions)] == [worker.id]
        resume(sessions, worker.name)
        until(lambda: states(sessions) == ["succeeded", "succeeded"])
