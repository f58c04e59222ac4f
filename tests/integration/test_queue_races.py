"""Two transactions at once: which waits, which wins, and that nothing is counted twice or lost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS
from shared.db import sessions as database
from shared.errors import Conflict
from shared.params.render import RenderParams
from shared.queue import drains, policy, queries, reaper, snapshot, transitions
from shared.queue.claim import claim
from shared.queue.submit import submit as submit_job
from shared.queue.transitions import Finish
from tests.support.admissions import admission
from tests.support.queueing import Farmhand

PARAMS = RenderParams(prompt="sea", checkpoint="demo [cccccccccc]", width=64, height=64, seed=7)


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def together(pool: ThreadPoolExecutor, *calls: Callable[[], Any]) -> list[Any]:
    """Run `calls` in threads that start at once; return their results, an exception as its own value."""
    barrier = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(10)
        try:
            return call()
        except Conflict as error:
            return error

    return [future.result(30) for future in [pool.submit(run, call) for call in calls]]


def wait_for_a_lock(sessions: database.Sessions, blocked: Future[Any]) -> None:
    """Return when one connection of this database waits for another."""
    query = text("""
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    """)
    with sessions() as session:
        while not session.scalar(query):
            assert not blocked.done(), blocked.result()
            session.rollback()


@pytest.mark.parametrize("turn", range(5))
def test_two_finishers_of_the_last_two_images_end_the_job_once(hand, job_factory, pool, turn):
    job = job_factory(count=2)
    worker = hand.worker()
    first, second = worker.claim(), worker.claim()

    answers = together(pool, lambda: hand.finish(first), lambda: hand.finish(second))

    assert answers == [Finish.COMMITTED, Finish.COMMITTED]
    ended = hand.job(job.id)
    assert (ended.state, ended.unfinished) == ("succeeded", 0)


def test_a_finisher_that_waits_for_another_sees_its_failure(hand, job_factory, pool, sessions):
    job = job_factory(count=2)
    worker = hand.worker()
    first, second = worker.claim(), worker.claim()

    with sessions.begin() as session:
        transitions.fail(session, first, "broken")
        waiting = pool.submit(hand.finish, second)
        wait_for_a_lock(sessions, waiting)

    assert waiting.result(10) == Finish.COMMITTED
    assert hand.job(job.id).state == "failed"


def test_claimers_at_once_take_each_image_once(hand, job_factory, pool):
    job_factory(count=24)
    workers = [hand.worker() for _ in range(8)]

    def drain(worker):
        taken = []
        while found := worker.claim():
            taken.append(found.image_id)
        return taken

    taken = [image for images in together(pool, *(partial(drain, worker) for worker in workers)) for image in images]

    assert len(taken) == len(set(taken)) == 24


def test_claim_skips_the_head_that_another_is_claiming(hand, job_factory, sessions):
    job_factory(count=2)
    first, second = hand.worker(), hand.worker()
    me = policy.Worker(first.id, ("default",))
    lanes = hand.run(snapshot.take).lanes

    with sessions.begin() as session:
        [taken] = claim(session, me, lanes)
        assert second.claim().image_id != taken.image_id


def test_claim_waits_for_the_burial_of_its_worker_and_finds_nothing(hand, job_factory, pool, sessions):
    job = job_factory()
    worker = hand.worker()

    with sessions.begin() as session:
        reaper.mark_dead(session, worker.id, reason="gone", crashed=False)
        waiting = pool.submit(worker.claim)
        wait_for_a_lock(sessions, waiting)

    assert waiting.result(10) is None
    assert hand.images(job.id)[0].state == "queued"


def test_burial_waits_for_a_claim_and_gives_its_image_back(hand, job_factory, pool, sessions):
    job = job_factory()
    worker = hand.worker()
    me = policy.Worker(worker.id, ("default",))
    lanes = hand.run(snapshot.take).lanes

    with sessions.begin() as session:
        assert len(claim(session, me, lanes)) == 1
        waiting = pool.submit(worker.mark_dead)
        wait_for_a_lock(sessions, waiting)

    assert waiting.result(10) == 1
    assert hand.images(job.id)[0].state == "queued"


def test_two_slots_of_a_worker_do_not_take_two_struck_images(hand, job_factory, pool, sessions):
    job_factory(count=2)
    dead = hand.worker()
    dead.claim()
    dead.claim()
    dead.mark_dead(crashed=True)
    worker = hand.worker()
    me = policy.Worker(worker.id, ("default",))
    lanes = hand.run(snapshot.take).lanes

    with sessions.begin() as session:
        first = claim(session, me, lanes)
        waiting = pool.submit(worker.claim)
        wait_for_a_lock(sessions, waiting)

    assert len(first) == 1
    assert waiting.result(10) is None
    assert hand.worker().claim() is not None


def test_a_finish_that_commits_first_wins_over_a_cancel(hand, job_factory, pool, sessions):
    job = job_factory()
    ours = hand.worker().claim()

    with sessions.begin() as session:
        transitions.finish(session, ours, 1)
        waiting = pool.submit(hand.run, transitions.cancel, EVERYBODYS, job.id)
        wait_for_a_lock(sessions, waiting)

    with pytest.raises(Conflict, match=f"Job {job.id} cannot be cancelled: it is succeeded"):
        waiting.result(10)
    assert hand.job(job.id).state == "succeeded"


def test_a_cancel_that_commits_first_wins_over_a_finish(hand, job_factory, pool, sessions):
    job = job_factory()
    ours = hand.worker().claim()

    with sessions.begin() as session:
        transitions.cancel(session, EVERYBODYS, job.id)
        waiting = pool.submit(hand.finish, ours)
        wait_for_a_lock(sessions, waiting)

    assert waiting.result(10) == Finish.REFUSED
    assert hand.job(job.id).state == "cancelled"


def test_a_second_cancel_at_the_same_time_is_a_conflict(hand, job_factory, pool):
    job = job_factory(count=5)

    answers = together(pool, *[lambda: hand.run(transitions.cancel, EVERYBODYS, job.id)] * 2)

    assert sorted(type(answer).__name__ for answer in answers) == ["Cancelled", "Conflict"]
    assert hand.job(job.id).unfinished == 0


def test_one_idempotency_key_makes_one_job_however_many_submit(hand, pool):
    def submit():
        return hand.run(submit_job, admission("ann", PARAMS), "once")

    answers = together(pool, *[submit] * 4)

    assert len({answer.job.id for answer in answers}) == 1
    assert [answer.is_new for answer in answers].count(True) == 1
    assert len(hand.images(answers[0].job.id)) == 1


def test_an_idempotency_key_waits_for_the_transaction_that_is_taking_it(hand, pool, sessions):
    session: Session = sessions()
    submit_job(session, admission("ann", PARAMS), "once")
    waiting = pool.submit(hand.run, submit_job, admission("ann", PARAMS), "once")
    wait_for_a_lock(sessions, waiting)
    session.rollback()
    session.close()

    assert waiting.result(10).is_new


def test_an_idempotency_key_with_another_request_is_a_conflict(hand):
    hand.run(submit_job, admission("ann", PARAMS), "once")
    other = PARAMS.model_copy(update={"steps": 7})

    with pytest.raises(Conflict, match="came with another request"):
        hand.run(submit_job, admission("ann", other), "once")
    assert hand.run(submit_job, admission("bob", other), "once").is_new


def test_an_idempotency_key_compares_what_was_asked_not_the_random_seed_it_got(hand):
    asked = PARAMS.model_copy(update={"seed": -1})
    first, second = (
        hand.run(submit_job, admission("ann", asked.model_copy(update={"seed": seed}), asked=asked), "once")
        for seed in (1, 2)
    )

    assert first.job.id == second.job.id
    assert not second.is_new
    assert second.job.params["seed"] == 1


def test_finishes_cancels_retries_and_burials_at_once_leave_a_job_that_adds_up(hand, job_factory, pool):
    job = job_factory(count=40)

    def work():
        for turn in range(12):
            worker = hand.worker()
            claims = [found for found in (worker.claim(), worker.claim()) if found]
            if claims:
                hand.finish(claims[0])
            if turn % 3 == 0:
                worker.mark_dead(crashed=False)
            elif claims[1:]:
                hand.run(transitions.fail, claims[1], "broken")

    def meddle():
        for index in range(10):
            for move in (transitions.cancel, transitions.retry):
                try:
                    hand.run(move, EVERYBODYS, job.id, index)
                except Conflict:
                    continue

    together(pool, work, work, work, meddle, meddle)

    unfinished = [image for image in hand.images(job.id) if image.state in {"queued", "running"}]
    ended = hand.job(job.id)
    assert ended.unfinished == len(unfinished)
    assert (ended.state == "open") == bool(unfinished)


@pytest.mark.parametrize(
    "drain",
    [
        lambda session, worker: drains.drain_sick(session, worker.id, "sick"),
        lambda session, worker: drains.drain(session, [worker.name], "new fan"),
    ],
    ids=["sick, too", "drained by a person"],
)
def test_a_worker_that_is_sick_while_its_only_company_goes_stays(hand, pool, sessions, drain):
    first, second = hand.worker(), hand.worker()
    for worker in (first, second):
        worker.heartbeat()

    with sessions.begin() as session:
        drain(session, first)
        waiting = pool.submit(hand.run, drains.drain_sick, second.id, "sick")
        wait_for_a_lock(sessions, waiting)

    assert waiting.result(10) == "default"
    assert [row.state for row in hand.run(queries.workers)] == ["drained", "ready"]


def test_a_sick_worker_waits_for_no_claim_of_another(hand, sessions, job_factory):
    job_factory()
    sick, other = hand.worker(), hand.worker()
    for worker in (sick, other):
        worker.heartbeat()
    lanes = hand.run(snapshot.take).lanes

    with sessions.begin() as session:
        assert len(claim(session, policy.Worker(other.id, ("default",)), lanes)) == 1
        assert hand.run(drains.drain_sick, sick.id, "sick") is None


@pytest.mark.parametrize("move", [partial(drains.drain, reason="new fan"), drains.resume])
def test_a_person_and_a_sick_worker_change_a_drain_one_after_the_other(hand, pool, sessions, move, monkeypatch):
    sick = hand.worker()
    sick.heartbeat()
    hand.run(drains.drain, [sick.name], "dust")
    turn, waiting = drains._set_state, []

    def half_done(*given):
        waiting.append(pool.submit(_drain_sick_once, sessions, sick.id))
        wait_for_a_lock(sessions, waiting[0])
        turn(*given)

    monkeypatch.setattr(drains, "_set_state", half_done)
    with sessions.begin() as session:
        move(session, [sick.name])

    assert waiting[0].result(10) == ("default" if move is drains.resume else None), "the last of its pool stays"


def _drain_sick_once(sessions, worker_id):
    """Not `transact`, which would try again after a deadlock."""
    with sessions.begin() as session:
        return drains.drain_sick(session, worker_id, "sick")
