"""What people are shown of the queue."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from shared.accounts.scope import EVERYBODYS, Scope
from shared.db import sessions as database
from shared.db.states import ImageState, WorkerState
from shared.db.tables import Job
from shared.errors import NotFound
from shared.queue import queries, transitions
from tests.support.queueing import Farmhand


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


@pytest.fixture
def shown(hand):
    return lambda job, owner=None: hand.run(queries.job, Scope(owner), job.id)


def test_a_job_shows_its_images_with_their_own_seeds(hand, job_factory, shown):
    job = job_factory(count=2, seed=40)
    worker = hand.worker()
    hand.finish(worker.claim())

    seen = shown(job)

    assert [(image.index, image.seed, image.state) for image in seen.images] == [
        (0, 40, ImageState.SUCCEEDED),
        (1, 41, ImageState.QUEUED),
    ]
    done, waiting = seen.images
    assert (done.worker, done.bytes, done.attempt) == (worker.name, 1000, 1)
    assert done.queued_at <= done.started_at <= done.ended_at
    assert (waiting.worker, waiting.started_at, waiting.ended_at) == (None, None, None)
    assert seen.params.count == 2
    assert seen.counts == dict.fromkeys(ImageState, 0) | {ImageState.SUCCEEDED: 1, ImageState.QUEUED: 1}


def test_an_image_given_back_shows_as_waiting(hand, job_factory, shown):
    job = job_factory()
    worker = hand.worker()
    worker.claim()
    worker.mark_dead()

    image = shown(job).images[0]

    assert (image.state, image.started_at, image.worker) == (ImageState.QUEUED, None, None)


def test_the_state_of_an_open_job_is_read_from_its_images(hand, job_factory, shown, sessions):
    job = job_factory(count=2)

    def state():
        """What the whole view shows; asked for alone it is the same."""
        whole = shown(job).state
        assert hand.run(queries.state, Scope("local"), job.id) == whole
        return whole

    assert state() == ImageState.QUEUED

    claim = hand.worker().claim()
    assert state() == ImageState.RUNNING

    hand.finish(claim)
    assert state() == ImageState.QUEUED

    with sessions.begin() as session:
        session.execute(text("UPDATE images SET state = 'held' WHERE state = 'queued'"))
    assert state() == ImageState.HELD

    hand.run(transitions.cancel, EVERYBODYS, job.id)
    assert state() == ImageState.CANCELLED
    assert shown(job).ended_at is not None


def test_state_of_a_job_of_another_owner_is_not_there(hand, job_factory):
    job = job_factory(owner="bob")
    with pytest.raises(NotFound):
        hand.run(queries.state, Scope("ann"), job.id)


def test_a_job_of_another_owner_is_not_there(job_factory, shown):
    job = job_factory(owner="ann")

    assert shown(job, "ann").id == shown(job).id
    with pytest.raises(NotFound, match=f"There is no job {job.id}"):
        shown(job, "bob")


def test_a_job_that_is_deleted_while_it_is_looked_at_is_not_there(job_factory, sessions):
    job = job_factory()
    with sessions() as session:
        looked_at = session.get_one(Job, job.id)
        database.transact(sessions, lambda other: transitions.delete(other, EVERYBODYS, job.id))
        with pytest.raises(NotFound):
            queries.job(session, EVERYBODYS, looked_at.id)


def test_position_counts_the_owner_s_images_that_stand_before(hand, job_factory, shown):
    first = job_factory(count=3)
    second = job_factory(count=2, checkpoint="d" * 64)
    urgent = job_factory(scheduling={"urgent": True})
    important = job_factory(scheduling={"priority": 1})
    other = job_factory(owner="bob")
    elsewhere = job_factory(scheduling={"pool": "large"})

    positions = [shown(job).position for job in (first, second, urgent, important, other, elsewhere)]

    assert positions == [2, 5, 0, 1, 0, 0]
    hand.finish(hand.worker().claim())
    assert shown(second).position == 4


def test_position_of_a_job_with_nothing_queued_is_none(hand, job_factory, shown):
    job = job_factory()
    hand.worker().claim()

    assert shown(job).position is None


def test_position_counts_only_so_far(job_factory, shown, monkeypatch):
    monkeypatch.setattr(queries, "FARTHEST", 3)
    job_factory(count=5)

    assert shown(job_factory()).position == 3


def test_pages_go_from_the_latest_to_the_first_without_gaps(hand, job_factory):
    ids = [job_factory(owner="ann").id for _ in range(5)]
    job_factory(owner="bob")
    seen, cursor = [], None
    while True:
        page = hand.run(queries.jobs, Scope("ann"), cursor=cursor, limit=2)
        seen.append([job.id for job in page.jobs])
        cursor = page.next
        if cursor is None:
            break

    assert seen == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]


def test_a_full_last_page_has_no_next(hand, job_factory):
    for _ in range(2):
        job_factory()

    assert hand.run(queries.jobs, EVERYBODYS, limit=2).next is None
    assert hand.run(queries.jobs, Scope("nobody")) == queries.Page((), None)


def test_jobs_of_all_owners(hand, job_factory):
    ids = [job_factory(owner=owner).id for owner in ("ann", "bob")]

    assert [job.id for job in hand.run(queries.jobs, EVERYBODYS).jobs] == ids[::-1]


def test_pages_by_state_show_what_is_displayed(hand, job_factory, sessions):
    jobs = {state: job_factory(count=2, scheduling={"priority": 9 - n}).id for n, state in enumerate(ImageState)}
    worker = hand.worker()
    with sessions.begin() as session:
        session.execute(text("UPDATE images SET state = 'held' WHERE job_id = :id"), {"id": jobs["held"]})
        session.execute(text("UPDATE images SET priority = 0 WHERE job_id = :id"), {"id": jobs["queued"]})
    worker.claim()
    worker.claim()
    for _ in range(2):
        hand.finish(worker.claim())

    for _ in range(2):
        hand.run(transitions.fail, worker.claim(), "broken")
    hand.run(transitions.cancel, EVERYBODYS, jobs["cancelled"])
    with sessions.begin() as session:
        session.execute(
            text("UPDATE images SET state = 'queued', worker_id = NULL WHERE job_id = :id AND index = 1"),
            {"id": jobs["running"]},
        )

    for state, job_id in jobs.items():
        page = hand.run(queries.jobs, EVERYBODYS, states=[state])
        assert [(job.id, job.state) for job in page.jobs] == [(job_id, state)]
    both = hand.run(queries.jobs, EVERYBODYS, states=["queued", "failed"])
    assert {job.id for job in both.jobs} == {jobs["queued"], jobs["failed"]}


def test_a_page_shows_the_first_images_of_each_job_and_counts_all(hand, job_factory):
    job_factory(count=queries.SHOWN + 3)

    job = hand.run(queries.jobs, EVERYBODYS).jobs[0]

    assert [image.index for image in job.images] == list(range(queries.SHOWN))
    assert job.counts[ImageState.QUEUED] == queries.SHOWN + 3


def test_workers_are_shown_with_what_they_do(hand, job_factory, sessions):
    job_factory()
    second, first = hand.worker(), hand.worker()
    second.claim()
    second.heartbeat(phase="steps", resident=["c" * 64], load_seconds=8.0)
    with sessions.begin() as session:
        session.execute(text("UPDATE workers SET lease_until = now() WHERE id = :id"), {"id": first.id})

    seen = hand.run(queries.workers)

    assert [worker.name for worker in seen] == sorted([first.name, second.name])
    busy, late = seen
    assert (busy.running, busy.state, busy.phase, busy.is_late) == (1, WorkerState.READY, "steps", False)
    assert (busy.resident, busy.load_seconds, busy.slots) == (("c" * 64,), 8.0, 8)
    assert (late.running, late.state, late.is_late) == (0, WorkerState.STARTING, True)


def test_counts_tell_what_waits_and_what_runs(hand, job_factory):
    assert hand.run(queries.counts) == {ImageState.QUEUED: 0, ImageState.RUNNING: 0}
    job_factory(count=4)
    worker = hand.worker()
    hand.finish(worker.claim())
    worker.claim()

    assert hand.run(queries.counts) == {ImageState.QUEUED: 2, ImageState.RUNNING: 1}
