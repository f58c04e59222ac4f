"""Taking workers out of the farm and putting them back: the queue, the API, the page, and real workers."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from shared.db.sessions import transact
from shared.db.states import WorkerState
from shared.db.tables import Drain, History, Worker
from shared.errors import NotFound
from shared.queue import drains, snapshot
from tests.support.browsing import look, send
from tests.support.queueing import Farmhand
from tests.support.waiting import until
from tests.support.workers import ready, started, states


@pytest.fixture
def hand(sessions):
    return Farmhand(sessions)


def drain(sessions, wanted, reason="new fan"):
    transact(sessions, lambda session: drains.drain(session, drains.matching(session, wanted), reason))


def resume(sessions, wanted):
    transact(sessions, lambda session: drains.resume(session, drains.matching(session, wanted)))


def drain_sick(sessions, worker):
    return transact(sessions, lambda session: drains.drain_sick(session, worker.id, "sick: broken"))


def up(hand, count, **terms):
    """That many workers that take images."""
    workers = [hand.worker(**terms) for _ in range(count)]
    for worker in workers:
        worker.heartbeat()
    return workers


def reasons(sessions):
    with sessions() as session:
        return dict(session.execute(select(Drain.worker, Drain.reason)).all())


def drained(sessions):
    with sessions() as session:
        return list(session.scalars(select(Worker).where(Worker.state == "drained")))


# The queue.


def test_a_drained_worker_claims_nothing_and_nobody_counts_on_it(hand, sessions, job_factory):
    job_factory(count=3)
    worker = hand.worker()
    worker.heartbeat()
    claim = worker.claim()
    drain(sessions, worker.name)
    assert worker.claim() is None
    [seen] = transact(sessions, snapshot.take).farm.workers
    assert not seen.has_room
    held = {claim.image_id: claim.attempt}
    assert worker.heartbeat(held).drained == "new fan"
    assert worker.heartbeat(held).drop == ()  # what it has it may finish
    resume(sessions, worker.name)
    assert worker.heartbeat(held).drained is None
    assert worker.claim() is not None


def test_a_drain_outlives_a_restart(hand, sessions, job_factory):
    job_factory()
    before = hand.worker()
    drain(sessions, before.name)
    before.mark_dead(crashed=False)
    again = Farmhand(sessions).worker()
    assert again.name == before.name
    assert again.claim() is None
    assert again.heartbeat().drained == "new fan"


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


# A worker that finds itself sick.


@pytest.mark.parametrize(("workers", "drained"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_sick_workers_drain_themselves_while_half_of_their_pool_stays(hand, sessions, workers, drained):
    pools = [drain_sick(sessions, worker) for worker in up(hand, workers)]
    assert pools == [None] * drained + ["default"] * (workers - drained)
    assert len(reasons(sessions)) == drained


def test_a_sick_worker_stays_for_the_sake_of_any_of_its_pools(hand, sessions):
    both, *_ = up(hand, 1, pool="default,large"), up(hand, 3)
    assert drain_sick(sessions, both[0]) == "large"
    up(hand, 1, pool="large")
    assert drain_sick(sessions, both[0]) is None


def test_workers_that_take_nothing_are_no_company_for_a_sick_one(hand, sessions):
    [worker] = up(hand, 1)
    hand.worker()  # still starts
    hand.worker(lease_seconds=-60).heartbeat(lease_seconds=-60)
    hand.worker().heartbeat(state=WorkerState.DRAINING)
    [by_hand] = up(hand, 1)
    drain(sessions, by_hand.name)
    assert drain_sick(sessions, worker) == "default"


def test_a_sick_worker_claims_nothing_and_is_resumed_like_any(hand, sessions, job_factory):
    job_factory()
    worker, _ = up(hand, 2)
    assert drain_sick(sessions, worker) is None
    assert worker.claim() is None
    assert [row.id for row in drained(sessions)] == [worker.id]
    assert worker.heartbeat().drained == "sick: broken"
    resume(sessions, worker.name)
    assert worker.claim() is not None
    with sessions() as session:
        told = session.scalars(select(History.event).where(History.worker == worker.name).order_by(History.id)).all()
    assert told == ["registered", "drained", "resumed", "claimed"]


def test_a_drain_by_a_person_keeps_its_reason_and_replaces_a_sick_ones(hand, sessions):
    first, second, *_ = up(hand, 4)
    drain(sessions, first.name)
    assert [drain_sick(sessions, worker) for worker in (first, second)] == [None, None]
    assert reasons(sessions) == {first.name: "new fan", second.name: "sick: broken"}
    drain(sessions, second.name, "card goes back")
    assert reasons(sessions) == {first.name: "new fan", second.name: "card goes back"}
    resume(sessions, "*")
    assert reasons(sessions) == {}


# The API and the page.


def test_a_drain_takes_any_text_as_its_reason(client, hand, sessions):
    worker = hand.worker()
    drain(sessions, worker.name, "cannot read \udcff\x00.safetensors" + "x" * 5000)
    assert worker.heartbeat().drained.startswith("cannot read ??.safetensors")
    [told] = client.post(f"/api/v1/workers/{worker.name}/drain?reason=dust%00").get_json()["workers"]
    assert told["drained"] == "dust?"


def test_workers_are_drained_and_resumed_over_http(client, hand):
    worker = hand.worker()
    worker.heartbeat()
    [told] = client.post(f"/api/v1/workers/{worker.name}/drain?reason=dust").get_json()["workers"]
    assert (told["name"], told["state"], told["drained"]) == (worker.name, "drained", "dust")
    [told] = client.post("/api/v1/workers/*/resume").get_json()["workers"]
    assert (told["state"], told["drained"]) == ("ready", None)
    missing = client.post("/api/v1/workers/host/cpu:7/drain")
    assert missing.status_code == 404
    assert f"There are {worker.name}." in missing.get_json()["detail"]


def test_the_page_drains_and_resumes_by_a_button(client, hand):
    worker = hand.worker()
    worker.heartbeat()
    assert "Pause " + worker.name in look(client, "/workers").text
    assert send(client, "/workers/drain", worker=worker.name).status_code == 303
    shown = look(client, "/workers").text
    assert "paused by hand" in shown
    assert f"Resume {worker.name}" in shown
    assert "All workers are paused. Resume one" in shown
    send(client, "/workers/resume", worker=worker.name)
    assert f"Pause {worker.name}" in look(client, "/workers").text
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
