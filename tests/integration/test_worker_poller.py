"""The look: tickets are issued where images wait without any, and Redis is not asked more often than it pays."""

from __future__ import annotations

import pytest

from shared.messaging.tickets import pool_queue, worker_queue
from tests.support.workers import made
from worker.dispatch.claimer import Claimer
from worker.dispatch.poller import Poller


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions, slots=3) as mine:
        yield mine


def tickets(worker):
    worker.tickets.flush()
    return worker.redis.llen(worker.farm_id.key(worker_queue(worker.id)))


def test_images_without_tickets_get_one_for_each_free_slot(worker, job_factory):
    job_factory(count=5)

    Poller(worker, Claimer(worker)).run_once()

    assert tickets(worker) == 3


def test_nothing_is_issued_where_nothing_waits(worker):
    Poller(worker, Claimer(worker)).run_once()

    assert tickets(worker) == 0


def test_where_there_are_tickets_none_are_issued_and_the_next_look_comes_soon_not_at_once(worker, job_factory):
    job_factory(count=5)
    worker.redis.rpush(worker.farm_id.key(pool_queue("default")), "a ticket")
    look = Poller(worker, Claimer(worker))

    look.run_once()
    worker.redis.delete(worker.farm_id.key(pool_queue("default")))
    pause = look.run_once()

    assert tickets(worker) == 0
    assert 0 < pause <= 0.05
