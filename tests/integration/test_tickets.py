"""Tickets over a real Redis: one an image, in the background, never in the way of admission."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from redis import Redis

from shared.db.farm import FarmId
from shared.messaging.tickets import Tickets, pool_queue, worker_queue
from tests.support.servers import silent

OURS = FarmId(lambda: "ours")


@pytest.fixture
def tickets(redis_url: str) -> Iterator[Tickets]:
    made = Tickets(redis_url, OURS)
    yield made
    made.close()


def waiting(redis_url: str, name: str) -> int:
    with Redis.from_url(redis_url) as redis:
        return redis.llen(OURS.key(name))


def test_one_ticket_an_image_waits_in_the_pools_queue(tickets, redis_url):
    tickets.publish("default", 3)
    tickets.publish("default", 2)
    tickets.publish("large", 1)
    tickets.publish("default", 0)
    tickets.pass_on(7)
    assert tickets.flush(10)
    assert waiting(redis_url, pool_queue("default")) == 5
    assert waiting(redis_url, pool_queue("large")) == 1
    assert waiting(redis_url, worker_queue(7)) == 1


def test_a_queue_holds_no_more_tickets_than_could_be_of_use(tickets, redis_url, monkeypatch):
    monkeypatch.setattr("shared.messaging.tickets._MOST_WAITING", 5)
    for _ in range(3):
        tickets.publish("default", 3)
        assert tickets.flush(10)
    assert waiting(redis_url, pool_queue("default")) == 5


def test_a_user_and_password_reach_redis_through_a_socket_too(redis_url):
    path = urlsplit(redis_url).path
    with Redis.from_url(redis_url) as redis:
        redis.execute_command("ACL", "SETUSER", "ann", "on", ">secret", "~*", "&*", "+@all")
        for password, count in (("wrong", 0), ("secret", 1)):
            tickets = Tickets(f"unix://ann:{password}@{path}", OURS)
            tickets.publish("default", 1)
            assert tickets.flush(10)
            assert redis.llen(OURS.key(pool_queue("default"))) == count
            tickets.close()
        redis.execute_command("ACL", "DELUSER", "ann")


def test_without_redis_the_door_neither_waits_nor_fails(tmp_path):
    with silent(tmp_path / "redis.sock") as url:
        tickets = Tickets(url, OURS)
        for _ in range(1000):
            tickets.publish("default", 1)
        assert not tickets.flush(0), "the first has not left yet, and nobody waited for it"
    assert tickets.flush(60)
    assert tickets.dropped >= 1
    tickets.close()
