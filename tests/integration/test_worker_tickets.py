"""Tickets that a slot takes by itself, after an image that was soon done."""

from __future__ import annotations

from functools import partial

import pytest
from redis import Redis

from shared.db.states import WorkerState
from shared.errors import Unavailable
from shared.messaging.tickets import Ticket, pool_queue, queues, take
from tests.support.workers import TICKET, made, states
from worker.dispatch import claimer as claims_module
from worker.dispatch import slots as slots_module
from worker.dispatch.claimer import Claimer
from worker.dispatch.slots import Slots
from worker.progress.reporter import Reporter


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions) as worker:
        yield worker


@pytest.fixture
def freed():
    """A line each time that a slot is free again."""
    return []


@pytest.fixture
def slots(worker, freed, monkeypatch):
    monkeypatch.setattr(slots_module, "_OWN_TICKETS_SECONDS", 60.0)
    on_free = partial(freed.append, "free")
    return Slots(worker, Claimer(worker), Reporter(worker.events), on_free=on_free, on_lost=lambda: None)


def publish(worker, pool="default", count=1):
    worker.tickets.publish(pool, count)
    assert worker.tickets.flush()


def waiting(worker, pool="default"):
    return worker.redis.llen(worker.farm_id.key(pool_queue(pool)))


def after_running(slots, monkeypatch, change):
    """Have something change when the next image has ended."""
    run = slots.run
    monkeypatch.setattr(slots, "run", lambda claim: (run(claim), change()))


def test_a_slot_that_had_an_image_takes_the_next_ticket(worker, slots, freed, sessions, job_factory):
    job_factory(count=4)
    publish(worker, count=2)
    slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded"] * 3 + ["queued"]
    assert waiting(worker) == 0
    assert freed == ["free"]


def test_a_ticket_that_brought_nothing_takes_no_other(worker, slots):
    publish(worker, count=2)
    slots.consume(was_passed=False)
    assert waiting(worker) == 2


def test_celery_is_asked_again_after_a_while(worker, slots, sessions, job_factory, monkeypatch):
    monkeypatch.setattr(slots_module, "_OWN_TICKETS_SECONDS", 0.0)
    job_factory(count=2)
    publish(worker)
    slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded", "queued"]
    assert waiting(worker) == 1


@pytest.mark.parametrize("end", [{"drained": "by hand"}, {"state": WorkerState.DRAINING}], ids=["drained", "SIGTERM"])
def test_a_worker_that_is_to_end_leaves_the_tickets_to_others(
    worker, slots, sessions, job_factory, monkeypatch, *, end
):
    job_factory(count=2)
    publish(worker)
    after_running(slots, monkeypatch, lambda: [setattr(worker, name, value) for name, value in end.items()])
    slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded", "queued"]
    assert waiting(worker) == 1


def test_without_redis_what_runs_is_finished_and_nothing_new_begins(worker, slots, sessions, job_factory, monkeypatch):
    job_factory(count=2)
    publish(worker)
    away = Redis(host="127.0.0.1", port=1, retry=None)
    after_running(slots, monkeypatch, lambda: monkeypatch.setattr(worker, "redis", away))
    slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded", "queued"]


def test_without_the_database_the_slot_is_free_again(worker, slots, freed, job_factory, monkeypatch):
    def away(*_):
        raise Unavailable("the database does not answer")

    job_factory(count=2)
    publish(worker)
    after_running(slots, monkeypatch, lambda: monkeypatch.setattr(claims_module, "transact", away))
    slots.consume(was_passed=False)
    assert states(worker.sessions) == ["succeeded", "queued"]
    assert freed == ["free"]


@pytest.mark.parametrize("was_passed", [False, True])
def test_a_ticket_of_its_own_that_brought_nothing_is_passed_on_once(
    worker, slots, job_factory, monkeypatch, was_passed
):
    job_factory()
    worker.tickets.pass_on(worker.id) if was_passed else worker.tickets.publish("default", 1)
    assert worker.tickets.flush()
    passed = []
    monkeypatch.setattr(slots._claimer, "better_worker", lambda: 99)
    monkeypatch.setattr(worker.tickets, "pass_on", passed.append)
    slots.consume(was_passed=False)
    assert passed == ([] if was_passed else [99])


def test_a_group_with_more_tickets_than_images_gives_what_there_is(worker, slots, job_factory):
    job_factory(count=2)
    publish(worker)
    assignments = slots._claimer._for_slots(0.0, [TICKET, None, TICKET, None])
    assert [one.ticket is not None for one in assignments] == [True, True, True, False]
    assert [one.claim is not None for one in assignments] == [True, True, False, False]


def test_tickets_come_from_all_pools_and_those_that_were_passed_on_say_so(worker):
    worker.tickets.pass_on(worker.id, 1)
    publish(worker, "large", 2)
    publish(worker, count=2)
    taken = [take(worker.redis, worker.farm_id, worker.id, ("large", "default"), 3) for _ in range(2)]
    assert taken == [[Ticket(was_passed=False)] * 3, [Ticket(was_passed=False), Ticket(was_passed=True)]]
    assert not any(map(worker.redis.llen, queues(worker.id, ("large", "default"))))
