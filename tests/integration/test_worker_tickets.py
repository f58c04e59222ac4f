"""Tickets that a slot takes by itself, after an image that was soon done."""

from __future__ import annotations

import pytest
from redis import Redis

from shared.tickets import Ticket, pool_queue, take, worker_queue
from tests.workers import made, states
from worker import slots as slots_module
from worker.claims import Claims
from worker.progress import Reporter
from worker.slots import Slots


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions) as worker:
        yield worker


@pytest.fixture
def slots(worker):
    return Slots(worker, Claims(worker), Reporter(worker.events), on_free=lambda: None, on_lost=lambda: None)


def publish(worker, pool="default", count=1):
    worker.tickets.publish(pool, count)
    assert worker.tickets.flush()


def waiting(worker, pool="default"):
    return worker.redis.llen(pool_queue(pool))


def test_a_slot_that_had_an_image_takes_the_next_ticket(worker, slots, sessions, job_factory):
    job_factory(count=4)
    publish(worker, count=2)
    slots.spend(was_passed=False)
    assert states(sessions) == ["succeeded"] * 3 + ["queued"]
    assert waiting(worker) == 0


def test_a_ticket_that_brought_nothing_takes_no_other(worker, slots):
    publish(worker, count=2)
    slots.spend(was_passed=False)
    assert waiting(worker) == 2


def test_celery_is_asked_again_after_a_while(worker, slots, sessions, job_factory, monkeypatch):
    monkeypatch.setattr(slots_module, "_OWN_TICKETS_SECONDS", 0.0)
    job_factory(count=2)
    publish(worker)
    slots.spend(was_passed=False)
    assert states(sessions) == ["succeeded", "queued"]
    assert waiting(worker) == 1


def test_a_drained_worker_leaves_the_tickets_to_others(worker, slots, sessions, job_factory, monkeypatch):
    job_factory(count=2)
    publish(worker)
    carry = slots.carry
    monkeypatch.setattr(slots, "carry", lambda claim: (carry(claim), setattr(worker, "drained", "by hand")))
    slots.spend(was_passed=False)
    assert states(sessions) == ["succeeded", "queued"]
    assert waiting(worker) == 1


def test_without_redis_what_runs_is_finished_and_nothing_new_begins(worker, slots, sessions, job_factory, monkeypatch):
    monkeypatch.setattr(worker, "redis", Redis(host="127.0.0.1", port=1, retry=None))
    job_factory(count=2)
    slots.spend(was_passed=False)
    assert states(sessions) == ["succeeded", "queued"]


def test_tickets_come_from_all_pools_and_those_that_were_passed_on_say_so(worker):
    worker.tickets.pass_on(worker.id, 1)
    publish(worker, "large", 2)
    publish(worker, count=2)
    taken = [take(worker.redis, worker.id, ("large", "default"), 3) for _ in range(2)]
    assert taken == [[Ticket(was_passed=False)] * 3, [Ticket(was_passed=False), Ticket(was_passed=True)]]
    assert not any(
        worker.redis.llen(queue) for queue in (*map(pool_queue, ("large", "default")), worker_queue(worker.id))
    )
