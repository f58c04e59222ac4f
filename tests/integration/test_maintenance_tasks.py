"""Chores over real servers: who does one, when it is due, and what each of them does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from operator import methodcaller
from threading import Barrier, Event, Thread

import pytest
from sqlalchemy import func, select, text, update

from cli import farm_checks
from shared.accounts.scope import EVERYBODYS
from shared.db import locks
from shared.db.sessions import transact
from shared.db.tables import ChoreDone, Image, Job, Worker
from shared.errors import StorageError
from shared.media.storage import key
from shared.messaging.tickets import worker_queue
from shared.queue import transitions
from tests.support.queueing import Farmhand
from worker.maintenance import process
from worker.maintenance.scheduler import ScheduledChore, schedule
from worker.maintenance.tasks import Chore, table

AT_ONCE = ("due", "reap", "deliver", "webhooks", "gallery", "usage")
ALL = (
    *(*AT_ONCE, "queues", "dependencies", "pictures", "jobs", "objects"),
    *("uploads", "attempts", "litter", "history", "outbox", "audit"),
)


@pytest.fixture
def context(settings):
    with process.open_context(settings) as context:
        yield context


@pytest.fixture
def farm(sessions):
    return Farmhand(sessions)


def scheduled(name, context):
    return schedule(table(context.settings), context)[name]


def done_at(sessions, name):
    return transact(sessions, lambda session: session.scalar(select(ChoreDone.done_at).filter_by(name=name)))


def count_of(done):
    """A chore of a test that counts how often it was done."""
    return Chore("test", 3600, lambda _: done.append(1) or {})


def test_lock_is_one_processs_and_free_again_after_it(sessions):
    with locks.chore_lock(sessions, "one") as first, locks.chore_lock(sessions, "one") as second:
        assert (first, second) == (True, False)
        with locks.chore_lock(sessions, "other") as other:
            assert other
    with locks.chore_lock(sessions, "one") as again:
        assert again


def test_lock_holds_no_transaction_open(sessions):
    with locks.chore_lock(sessions, "one"):
        idle = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
        assert transact(sessions, lambda session: session.scalar(idle)) == 0


def test_all_chores_at_once_have_their_locks_and_reach_the_database(context):
    together = Barrier(len(ALL))

    def run(context):
        together.wait(30)  # each holds its lock by now
        reached.append(transact(context.sessions, lambda session: session.scalar(text("SELECT 1"))))
        return {}

    reached = []
    chores = schedule((Chore(name, 3600, run) for name in ALL), context).values()
    threads = [Thread(target=chore.run_once) for chore in chores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reached == [1] * len(ALL)


def test_lock_whose_connection_broke_is_free_and_the_chore_may_end(sessions):
    others = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    )
    with locks.chore_lock(sessions, "one") as first:
        assert first
        transact(sessions, lambda session: session.execute(others))
        with locks.chore_lock(sessions, "one") as second:
            assert second
    with locks.chore_lock(sessions, "one") as third:
        assert third


def test_seldom_chore_is_done_once_for_all_until_it_is_due_again(context, sessions):
    done = []
    for _ in range(3):  # processes
        ScheduledChore(count_of(done), context).run_once()
    assert len(done) == 1
    earlier = update(ChoreDone).values(done_at=func.now() - timedelta(seconds=3601))
    transact(sessions, lambda session: session.execute(earlier))
    ScheduledChore(count_of(done), context).run_once()
    assert len(done) == 2


def test_chore_that_was_noted_before_the_clock_was_put_back_is_due(context, sessions):
    done = []
    ScheduledChore(count_of(done), context).run_once()
    later = update(ChoreDone).values(done_at=func.now() + timedelta(days=1))
    transact(sessions, lambda session: session.execute(later))
    ScheduledChore(count_of(done), context).run_once()
    assert len(done) == 2


def standing(sessions):
    return transact(sessions, locks.standing)


def test_standing_tells_whether_a_process_does_chores(sessions, settings):
    assert standing(sessions) == locks.Standing(is_anybody=False, overdue=())
    with process.open_context(settings) as context:
        scheduled("queues", context).run_once()
        assert standing(sessions) == locks.Standing(is_anybody=True, overdue=())


def test_chore_is_overdue_a_while_after_it_was_due(context, sessions):
    scheduled("jobs", context).run_once()
    for seconds, overdue in ((3600 + 590, []), (3600 + 610, ["jobs"])):
        earlier = update(ChoreDone).values(done_at=func.now() - timedelta(seconds=seconds))
        transact(sessions, methodcaller("execute", earlier))
        assert [chore.name for chore in standing(sessions).overdue] == overdue
    assert standing(sessions).overdue[0].done_at == done_at(sessions, "jobs")


def test_chore_that_fails_from_the_first_time_on_is_overdue(context, sessions, monkeypatch):
    for name in locks.SECONDS.keys() - {"litter"}:
        scheduled(name, context).run_once()
    assert standing(sessions).overdue == ()
    monkeypatch.setattr(locks, "_LATE_SECONDS", -1.0)
    assert standing(sessions).overdue == (locks.Overdue("litter", None),)


def test_standing_is_told_over_http(client, context, sessions):
    assert client.get("/api/v1/chores").get_json() == {"is_anybody": False, "overdue": []}
    scheduled("jobs", context).run_once()
    transact(
        sessions, lambda session: session.execute(update(ChoreDone).values(done_at=func.now() - timedelta(days=1)))
    )
    told = client.get("/api/v1/chores").get_json()
    assert (told["is_anybody"], [chore["name"] for chore in told["overdue"]]) == (True, ["jobs"])


def test_chore_that_another_process_is_at_is_left_to_it(context, settings):
    began, go_on, done = Event(), Event(), []

    def slow(_):
        began.set()
        go_on.wait(20)
        done.append("slow")
        return {}

    first = Thread(target=ScheduledChore(Chore("test", 3600, slow), context).run_once)
    first.start()
    assert began.wait(20)
    with process.open_context(settings) as other:
        second = ScheduledChore(count_of(done), other)
        second.request()
        second.run_once()
        assert done == []
        go_on.set()
        first.join()
        second.run_once()  # it had been asked: what that was about may have been too late for the first
    assert done == ["slow", 1]


def test_chore_that_is_asked_for_is_done_before_it_is_due(context):
    done = []
    ours = ScheduledChore(count_of(done), context)
    ours.run_once()
    ours.run_once()
    assert len(done) == 1
    ours.request()
    ours.run_once()
    assert len(done) == 2
    ours.run_once()
    assert len(done) == 2


def test_chore_that_failed_is_tried_again_though_it_is_not_due(context, sessions):
    answers = [StorageError("no route"), {}]

    def work(_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    ours = ScheduledChore(Chore("test", 3600, work), context)
    ours.run_once()
    assert done_at(sessions, "test") is None
    ours.run_once()
    assert answers == []
    assert done_at(sessions, "test") is not None


def test_every_chore_works_on_an_empty_farm(context, sessions):
    asked = schedule(table(context.settings), context)
    assert tuple(asked) == ALL
    for one in asked.values():
        one.run_once()
        assert one._trouble is None
    noted = transact(sessions, lambda session: session.scalars(select(ChoreDone.name)).all())
    assert set(noted) == set(ALL) - set(AT_ONCE)


def test_deadlines_and_holds_are_kept_though_no_worker_lives(context, sessions, job_factory):
    late, held = job_factory(), job_factory()
    past = func.now() - timedelta(seconds=1)
    changes = (
        update(Image).where(Image.job_id == late.id).values(expires_at=past),
        update(Image).where(Image.job_id == held.id).values(state="held", held_until=past),
    )
    transact(sessions, lambda session: [session.execute(change) for change in changes])
    scheduled("due", context).run_once()
    states = select(Image.state).order_by(Image.id)
    assert transact(sessions, lambda session: session.scalars(states).all()) == ["cancelled", "queued"]
    assert context.tickets.flush(10)
    assert context.redis.llen(context.farm_id.key("pool.default")) == 1


def test_silent_worker_is_declared_dead_though_no_other_lives(settings, sessions, farm, job_factory):
    class OnTime:
        def tick(self): ...

        def seconds_on_time(self):
            return self.answer

    on_time = OnTime()
    job = job_factory()
    farm.worker(lease_seconds=-60).claim()
    # The test's servers may be younger than a usual lease.
    with process.open_context(settings.model_copy(update={"lease_seconds": 0.01})) as context:
        ours = scheduled("reap", replace(context, clock_guard=on_time))
        for answer, state in ((0.0, "running"), (1.0, "queued")):
            on_time.answer = answer
            ours.run_once()
            assert [image.state for image in farm.images(job.id)] == [state]
    assert transact(sessions, lambda session: session.scalars(select(Worker.id)).all()) == []


def test_queues_of_workers_that_are_gone_are_forgotten_and_no_others(context, farm):
    gone, here = farm.worker(), farm.worker()
    for hand in (gone, here):
        context.redis.sadd(context.farm_id.key(f"_kombu.binding.{worker_queue(hand.id)}"), "x")
        context.redis.rpush(context.farm_id.key(worker_queue(hand.id)), "ticket")
    context.redis.rpush(context.farm_id.key("pool.default"), "ticket")
    gone.mark_dead()
    scheduled("queues", context).run_once()
    left = sorted(key.decode() for key in context.redis.scan_iter())
    kept = (f"_kombu.binding.{worker_queue(here.id)}", "pool.default", worker_queue(here.id))
    assert left == [context.farm_id.key(name) for name in kept]


def test_jobs_and_history_are_kept_as_long_as_the_settings_say(settings, sessions, job_factory):
    job = job_factory()
    aged = update(Job).values(ended_at=func.now() - timedelta(days=3))
    transact(sessions, lambda session: (transitions.cancel(session, EVERYBODYS, job.id), session.execute(aged)))
    for days, jobs in ((0, 1), (4, 1), (2, 0)):
        with process.open_context(settings.model_copy(update={"keep_days": days})) as context:
            ours = scheduled("jobs", context)
            ours.request()
            ours.run_once()
        assert transact(sessions, lambda session: len(session.scalars(select(Job.id)).all())) == jobs
    for days, lines in ((0, 3), (1, 1)):
        transact(sessions, lambda session: session.execute(text("UPDATE history SET at = at - interval '2 days'")))
        with process.open_context(settings.model_copy(update={"history_days": days})) as context:
            ours = scheduled("history", context)
            ours.request()
            ours.run_once()
        assert transact(sessions, lambda session: session.scalar(text("SELECT count(*) FROM history"))) == lines


def test_sweeps_are_chores(context, sessions, job_factory):
    gone, here = job_factory(), job_factory()
    transact(sessions, lambda session: transitions.delete(session, EVERYBODYS, gone.id))
    transact(sessions, lambda session: session.execute(update(Image).values(attempt=2)))
    late, lost = key(gone.id, 0, 1, "picture"), key(here.id, 0, 1, "picture")
    upload = f"uploads/ab/{'ab' * 32}.png"
    for name, swept in (("objects", late), ("attempts", lost), ("uploads", upload)):
        for one in (late, lost, upload):
            if not context.storage.exists(one):
                context.storage.put(one, b"picture")
        scheduled(name, context).run_once()
        assert [one for one in (late, lost, upload) if not context.storage.exists(one)] == [swept]


def test_what_needs_no_redis_goes_on_without_it(settings, sessions, job_factory, tmp_path):
    late = job_factory()
    past = update(Image).where(Image.job_id == late.id).values(expires_at=func.now() - timedelta(seconds=1))
    transact(sessions, lambda session: session.execute(past))
    nobody = f"unix://{tmp_path}/nobody.sock"
    with process.open_context(settings.model_copy(update={"redis_url": nobody})) as context:
        for name in ALL:
            scheduled(name, context).run_once()
    assert transact(sessions, lambda session: session.scalars(select(Image.state)).all()) == ["cancelled"]
    noted = transact(sessions, lambda session: session.scalars(select(ChoreDone.name)).all())
    assert set(noted) == set(ALL) - {*AT_ONCE, "queues"}


def test_doctor_tells_whether_a_process_does_chores(settings):
    assert farm_checks.chores(settings).text == "No process does them."
    with process.open_context(settings) as context:
        scheduled("queues", context).run_once()
        assert farm_checks.chores(settings).text == "Up to date."
