"""Every end of a job is an event in the outbox: written once with the end, delivered at least once."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, text, update

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import Image, Job, Outbox
from shared.errors import StorageAway, Unavailable
from shared.maintenance.outbox import Delivered, deliver, forget, try_again
from shared.queue import deadlines, transitions
from tests.support.queueing import Farmhand


class Consumer:
    """Remembers what it got, and raises `error` for the jobs in `fails`."""

    def __init__(self, error=None, fails=()):
        self.got, self.error, self.fails = [], error, fails

    def __call__(self, event):
        self.got.append((event.kind, event.job_id, event.owner))
        if event.job_id in self.fails:
            raise self.error


@pytest.fixture
def farm(sessions):
    return Farmhand(sessions)


@pytest.fixture
def ended(farm, job_factory):
    """Makes a job that has ended, and returns its id."""

    def make(**options):
        job = job_factory(**options)
        farm.run(transitions.cancel, EVERYBODYS, job.id)
        return job.id

    return make


def events(farm):
    return farm.run(lambda session: session.scalars(select(Outbox).order_by(Outbox.id)).all())


def of(*jobs):
    return [("job_ended", job, "ann") for job in jobs]


def hours_pass(farm):
    farm.run(lambda session: session.execute(update(Outbox).values(due_at=func.now() - text("interval '1 second'"))))


def finish(farm, job):
    farm.finish(farm.worker().claim())


def fail(farm, job):
    farm.run(transitions.fail, farm.worker().claim(), "broken")


def cancel(farm, job):
    farm.run(transitions.cancel, EVERYBODYS, job.id)


def miss_the_deadline(farm, job):
    farm.run(lambda session: session.execute(update(Image).values(expires_at=func.now() - text("interval '1 second'"))))
    farm.run(deadlines.move_due)


def crash_three_times(farm, job):
    for _ in range(3):
        worker = farm.worker()
        worker.claim()
        worker.mark_dead(crashed=True)


@pytest.mark.parametrize("end", [finish, fail, cancel, miss_the_deadline, crash_three_times])
def test_each_way_in_which_a_job_ends_is_one_event_of_the_same_instant(farm, job_factory, end):
    job = job_factory(owner="ann")
    assert events(farm) == []
    end(farm, job)
    [event] = events(farm)
    assert (event.kind, event.job_id, event.owner) == ("job_ended", job.id, "ann")
    assert event.at == farm.job(job.id).ended_at


def test_a_job_of_many_images_ends_once_and_once_more_after_a_retry(farm, job_factory):
    job = job_factory(count=3)
    worker = farm.worker()
    farm.finish(worker.claim())
    farm.run(transitions.cancel, EVERYBODYS, job.id, 1)
    assert events(farm) == []
    farm.finish(worker.claim())
    [first] = events(farm)
    farm.run(transitions.retry, EVERYBODYS, job.id)
    assert len(events(farm)) == 1
    farm.finish(worker.claim())
    assert [event.id for event in events(farm)] == [first.id, first.id + 1]


def test_an_end_that_is_not_committed_is_no_event(sessions, farm, job_factory):
    job = job_factory()

    def cancel_and_think_better_of_it(session):
        transitions.cancel(session, EVERYBODYS, job.id)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        transact(sessions, cancel_and_think_better_of_it)
    assert events(farm) == []


def test_each_event_is_delivered_to_all_and_then_no_more(sessions, ended):
    jobs = [ended(owner="ann") for _ in range(3)]
    one, other = Consumer(), Consumer()
    assert deliver(sessions, [one, other], 20) == Delivered(3, 0)
    assert one.got == other.got == of(*jobs)
    assert deliver(sessions, [one, other], 20) == Delivered(0, 0)
    assert len(one.got) == 3


def test_an_event_of_a_job_that_was_deleted_is_delivered_too(sessions, farm, ended):
    job = ended(owner="ann")
    farm.run(transitions.delete, EVERYBODYS, job)
    assert deliver(sessions, [consumer := Consumer()], 20) == Delivered(1, 0)
    assert consumer.got == of(job)


@pytest.mark.parametrize("error", [StorageAway("storing", "the disk is full"), RuntimeError("a mistake in the code")])
def test_what_a_consumer_fails_at_is_tried_again_later_and_keeps_nobody_waiting(sessions, farm, ended, error):
    bad, good = ended(owner="ann"), ended(owner="ann")
    failing, other = Consumer(error, fails=[bad]), Consumer()
    assert deliver(sessions, [failing, other], 20) == Delivered(1, 1)
    assert failing.got == other.got == of(bad, good)
    assert deliver(sessions, [failing, other], 20) == Delivered(0, 0), "it is not due yet"
    hours_pass(farm)
    failing.fails = ()
    assert deliver(sessions, [failing, other], 20) == Delivered(1, 0)
    assert failing.got == of(bad, good, bad)


def test_the_pauses_between_tries_are_doubled_up_to_a_bound(sessions, farm, ended):
    bad = ended()
    pauses = []
    for _ in range(6):
        hours_pass(farm)
        deliver(sessions, [Consumer(ValueError(), fails=[bad])], 600)
        pauses.append(farm.run(lambda session: session.scalar(text("SELECT due_at - now() FROM outbox"))))
    assert [round(pause.total_seconds() / 600) for pause in pauses] == [1, 2, 4, 6, 6, 6]


def tried(farm, times):
    farm.run(lambda session: session.execute(update(Outbox).values(tries=times)))
    hours_pass(farm)


def test_what_fails_for_a_day_is_set_aside_with_the_reason_until_somebody_has_it_tried_again(sessions, farm, ended):
    bad, good = ended(owner="ann"), ended(owner="ann")
    failing = Consumer(ValueError("no such font"), fails=[bad])
    tried(farm, 28)
    assert deliver(sessions, [failing], 20) == Delivered(1, 1)
    tried(farm, 29)
    assert deliver(sessions, [failing], 20) == Delivered(0, 0, 1)
    hours_pass(farm)
    assert deliver(sessions, [failing], 20) == Delivered()
    [row, _] = events(farm)
    assert (row.reason, row.dead_at is None, row.delivered_at) == ("ValueError('no such font')", False, None)
    forget(sessions)
    assert len(events(farm)) == 2
    failing.fails = ()
    assert farm.run(try_again) == 1
    assert deliver(sessions, [failing], 20) == Delivered(1)
    assert failing.got == of(bad, good, bad, bad)


def test_an_outage_sets_nothing_aside_however_long_it_takes(sessions, farm, ended):
    bad = ended(owner="ann")
    away = Consumer(StorageAway("storing", "the disk is full"), fails=[bad])
    for _ in range(3):
        tried(farm, 29)
        assert deliver(sessions, [away], 20) == Delivered(0, 1)


def test_a_database_that_answers_too_late_sets_nothing_aside_either(sessions, farm, ended):
    slow = Consumer(Unavailable("the database does not answer"), fails=[ended(owner="ann")])
    tried(farm, 29)
    for _ in range(3):
        with pytest.raises(Unavailable):
            deliver(sessions, [slow], 20)
        hours_pass(farm)
    slow.fails = ()
    assert deliver(sessions, [slow], 20) == Delivered(1)


def test_an_event_that_ends_its_deliverers_is_set_aside_too(sessions, farm, ended):
    ended()
    tried(farm, 30)
    assert deliver(sessions, [consumer := Consumer()], 20) == Delivered(0, 0, 1)
    assert consumer.got == []


@pytest.mark.parametrize("killed", [KeyboardInterrupt, Unavailable("the database does not answer")])
def test_what_was_taken_by_a_process_that_ended_is_delivered_by_the_next(sessions, farm, ended, killed):
    job = ended(owner="ann")
    with pytest.raises((KeyboardInterrupt, Unavailable)):
        deliver(sessions, [Consumer(killed, fails=[job])], 20)
    hours_pass(farm)
    assert deliver(sessions, [next_one := Consumer()], 20) == Delivered(1, 0)
    assert next_one.got == of(job)


def test_what_another_process_is_taking_is_passed_over(sessions, ended):
    first, second = ended(owner="ann"), ended(owner="ann")
    with sessions() as holder:
        holder.execute(select(Outbox.id).where(Outbox.job_id == first).with_for_update())
        assert deliver(sessions, [consumer := Consumer()], 20) == Delivered(1, 0)
    assert consumer.got == of(second)


def test_only_what_was_delivered_long_ago_is_forgotten(sessions, farm, ended):
    jobs = [ended() for _ in range(3)]
    deliver(sessions, [], 20)
    for job, days in zip(jobs, (8, 6, None), strict=True):
        at = days and func.now() - text(f"interval '{days} days'")
        farm.run(
            lambda session, job=job, at=at: session.execute(
                update(Outbox).where(Outbox.job_id == job).values(delivered_at=at)
            )
        )
    assert forget(sessions) == 1
    assert [event.job_id for event in events(farm)] == jobs[1:]
    assert farm.run(lambda session: session.scalars(select(Job.id).order_by(Job.id)).all()) == jobs
