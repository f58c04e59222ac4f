"""Events over a real Redis: seen by all who listen, kept for those who come back, and never in anybody's way."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from redis.client import PubSub

from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.db.farm import FarmId
from shared.messaging.events import Events, ImageChanged, JobChanged, Progress
from shared.messaging.redis_health import AWAY
from tests.support.servers import silent
from tests.support.waiting import until

OURS = FarmId(lambda: "ours")


def progress(step: int, *, job: int = 1, index: int = 0) -> Progress:
    return Progress(job=job, index=index, attempt=1, step=step, steps=20, phase="steps")


@pytest.fixture
def events(redis_url: str) -> Iterator[Events]:
    made = Events(redis_url, OURS)
    yield made
    made.close()


@pytest.fixture
def others(redis_url: str) -> Iterator[Events]:
    """The events as another process has them."""
    made = Events(redis_url, OURS)
    yield made
    made.close()


def drain(subscription) -> list:
    received = []
    while (one := subscription.get(0.2)) is not None:
        received.append(one)
    return received


def test_a_subscriber_receives_the_events_of_its_job_in_their_order(events, others):
    with others.subscribe(1) as subscription:
        events.publish(ImageChanged(job=1, index=0, state="running"))
        events.publish(progress(5))
        events.publish(JobChanged(job=2, state="succeeded"))
        events.publish(JobChanged(job=1, state="succeeded"))
        received = [subscription.get(5) for _ in range(3)]
        assert [one.event for one in received] == [
            ImageChanged(job=1, index=0, state="running"),
            progress(5),
            JobChanged(job=1, state="succeeded"),
        ]
        assert [one.id for one in received] == sorted({one.id for one in received})
        assert subscription.get(0.01) is None


def test_many_subscribers_are_one_subscription_of_redis(events, redis_url):
    with ExitStack() as stack, Redis.from_url(redis_url) as redis:
        subscriptions = [stack.enter_context(events.subscribe()) for _ in range(5)]
        assert redis.pubsub_numsub(OURS.key("events")) == [(OURS.key("events").encode(), 1)]
        events.publish(progress(1))
        assert [subscription.get(5).event for subscription in subscriptions] == [progress(1)] * 5


def test_a_slow_subscriber_loses_the_oldest_and_holds_up_nobody(events, monkeypatch):
    monkeypatch.setattr("shared.messaging.events._BACKLOG", 3)
    with events.subscribe() as slow, events.subscribe() as quick:
        monkeypatch.setattr(quick, "_waiting", queue.Queue(100))
        for index in range(8):
            events.publish(JobChanged(job=index, state="open"))
        assert [quick.get(5).event.job for _ in range(8)] == list(range(8))
        assert [one.event.job for one in drain(slow)] == [5, 6, 7]


def test_one_who_comes_back_gets_what_it_missed(events, others):
    with others.subscribe(1) as subscription:
        events.publish(progress(1))
        last = subscription.get(5).id
    events.publish(ImageChanged(job=1, index=0, state="succeeded"))
    events.publish(JobChanged(job=1, state="succeeded"))
    assert events.flush()
    assert [one.event.kind for one in others.replay(1, last)] == ["image", "job"]
    assert len(others.replay(1, "0")) == 3
    assert others.replay(2, last) == []


@pytest.mark.parametrize("foreign", ['{"kind": "weather"}', '{"kind": "job", "mood": 1}', "[]", "x"])
def test_what_another_version_of_the_farm_tells_is_skipped(events, others, redis_url, foreign):
    with others.subscribe(1) as subscription, Redis.from_url(redis_url) as redis:
        redis.publish(OURS.key("events"), f"1-1 {foreign}")
        redis.publish(OURS.key("orders"), foreign)
        redis.xadd(OURS.key("job:1:events"), {"event": foreign})
        redis.hset(OURS.key("job:1:progress"), "0", foreign)
        events.publish(JobChanged(job=1, state="succeeded"))
        assert subscription.get(5).event.kind == "job"
    assert [one.event.kind for one in others.replay(1, "0")] == ["job"]
    assert others.progress(1) == {}


def test_a_subscription_survives_what_nobody_expected(events, others, monkeypatch):
    receive, surprises = PubSub.get_message, [ZeroDivisionError("surprise")]

    def once(*arguments, **options):
        if surprises:
            raise surprises.pop()
        return receive(*arguments, **options)

    monkeypatch.setattr(PubSub, "get_message", once)
    with others.subscribe(1) as subscription:
        until(lambda: not surprises)
        told = until(lambda: events.publish(JobChanged(job=1, state="succeeded")) or subscription.get(0.2))
    assert told.event.kind == "job"


@pytest.mark.parametrize("forged", ["", "x", "1-2-3", "$", "-1", "999999999999999999999999999"])
def test_an_id_that_none_of_ours_is_replays_nothing(others, forged):
    assert others.replay(1, forged) == []


def test_the_latest_progress_of_each_image_is_kept_while_it_runs(events, others):
    for step in range(1, 6):
        events.publish(progress(step))
    events.publish(progress(3, index=1))
    assert events.flush()
    assert others.progress(1) == {0: progress(5), 1: progress(3, index=1)}
    events.publish(ImageChanged(job=1, index=0, state="succeeded"))
    assert events.flush()
    assert others.progress(1) == {1: progress(3, index=1)}


def test_what_is_kept_expires(events, redis_url):
    events.publish(progress(1))
    events.put_preview(1, 0, b"webp")
    assert events.flush()
    with Redis.from_url(redis_url) as redis:
        assert all(redis.ttl(key) > 0 for key in redis.scan_iter())
        assert len(redis.keys()) == 3


def test_previews_are_read_back(events, others):
    events.put_preview(1, 2, b"old")
    events.put_preview(1, 2, b"new")
    assert events.flush()
    assert others.preview(1, 2) == b"new"
    assert others.preview(1, 3) is None


def test_workers_hear_orders(events, others):
    cancelled: queue.Queue = queue.Queue()
    scans: queue.Queue = queue.Queue()
    others.listen_cancels(cancelled.put)
    others.listen_rescans(lambda: scans.put("scan"))
    events.announce_cancel({3: 1, 4: 2})
    events.announce_rescan()
    assert cancelled.get(timeout=5) == {3: 1, 4: 2}
    assert scans.get(timeout=5) == "scan"
    assert cancelled.empty()


def test_without_redis_nothing_waits_and_nothing_fails(tmp_path):
    with silent(tmp_path / "redis.sock") as url:
        events = Events(url, OURS)
        for step in range(1000):
            events.publish(progress(step))
        events.put_preview(1, 0, b"webp")
        assert not events.flush(0), "the first has not left yet, and nobody waited for it"
    assert (events.progress(1), events.preview(1, 0), events.replay(1, "0"), events.trouble()) == ({}, None, [], AWAY)
    assert events.flush(60)
    assert events.dropped >= 2
    with events.subscribe() as subscription:
        assert subscription.get(0.01) is None
    events.close()


def test_after_a_restart_of_redis_events_flow_again(tmp_path: Path):
    home = tmp_path / "farm"
    with Servers(home, postgres=False) as servers:
        events, others = (Events(embedded_addresses.redis_url(home), OURS) for _ in range(2))
        with others.subscribe() as subscription:
            events.publish(progress(1))
            assert subscription.get(5).event == progress(1)
            for server in servers._servers:
                server.server.stop()
            assert servers.tend() == ["Redis"]
            assert await_event(events, subscription).event.kind == "progress"
        events.close()
        others.close()


def await_event(events: Events, subscription):
    """Publish until something arrives: the first ones may be lost, as hints are."""
    for step in range(2, 200):
        events.publish(progress(step))
        if received := subscription.get(0.1):
            return received
    raise AssertionError("nothing arrives any more")
