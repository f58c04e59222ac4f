"""A Redis that answers and takes nothing: told wherever somebody would ask why nothing starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis

from cli import farm_checks
from shared.db.farm import FarmId
from shared.messaging import redis_health
from shared.messaging.redis_health import RedisHealth
from tests.support.queueing import Farmhand

OURS = FarmId(lambda: "ours")


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@contextmanager
def replica(redis: Redis) -> Iterator[None]:
    redis.replicaof("127.0.0.1", "1")
    yield
    redis.replicaof("NO", "ONE")


@contextmanager
def full(redis: Redis) -> Iterator[None]:
    redis.config_set("maxmemory", "1")
    yield
    redis.config_set("maxmemory", "0")


@pytest.fixture(params=[(replica, "only reads"), (full, "is full")], ids=["replica", "full"])
def words(request, redis) -> Iterator[str]:
    trouble, words = request.param
    with trouble(redis):
        yield words


def test_redis_that_takes_what_is_written_has_no_trouble(redis):
    assert RedisHealth(redis, OURS).trouble() is None
    assert 0 < redis.ttl(OURS.key("health")) <= 60


@pytest.fixture
def job(sessions, checkpoint_factory, job_factory):
    """A job that would be next."""
    Farmhand(sessions).worker().heartbeat()
    return job_factory(owner="local", checkpoint=checkpoint_factory().sha256)


def test_redis_that_takes_nothing_is_told_everywhere(words, client, settings, job):
    assert words in client.get("/readyz").get_json()["checks"]["redis"]
    waiting = client.get(f"/api/v1/jobs/{job.id}").get_json()["waiting"]
    assert (waiting["code"], waiting["estimate_seconds"]) == ("redis", None)
    assert words in waiting["text"]
    assert words in client.get("/workers").text
    assert "farm_redis_up 0.0" in client.get("/metrics").text
    assert words in farm_checks.redis(settings).text


def test_it_is_asked_once_in_a_while_however_many_ask(redis, monkeypatch):
    health = RedisHealth(redis, OURS)
    assert health.trouble() is None
    with replica(redis):
        assert health.trouble() is None
        monkeypatch.setattr(redis_health, "_TRUSTED_SECONDS", 0.0)
        assert "only reads" in RedisHealth(redis, OURS).trouble()


def test_redis_that_refuses_the_user_is_told(redis):
    redis.execute_command("ACL", "SETUSER", "guest", "on", ">secret", "~*", "&*", "+@read", "+ping")
    url = redis.connection_pool.connection_kwargs["path"]
    for password in ("secret", "wrong"):
        with Redis.from_url(f"unix://guest:{password}@{url}") as guest:
            assert "refuses the farm's user" in RedisHealth(guest, OURS).trouble()
    redis.execute_command("ACL", "DELUSER", "guest")


def test_redis_that_evicts_is_worth_a_note(redis, settings):
    redis.config_set("maxmemory-policy", "allkeys-lru")
    found = farm_checks.redis(settings)
    redis.config_set("maxmemory-policy", "noeviction")
    assert (found.level, "allkeys-lru" in found.text) == ("note", True)
    assert farm_checks.redis(settings).level == "fine"
