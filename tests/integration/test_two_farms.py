"""Two farms on one Redis server, with a database number each and with the same: neither hears of the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import text

from shared.db import sessions as database
from shared.db.farm import FarmId, farm_id
from shared.db.sessions import transact
from shared.messaging.events import Events, JobChanged
from shared.messaging.tickets import Tickets, celery_app
from shared.queue.explainer import Explainer
from shared.queue.snapshot import Snapshots
from tests.support.servers import fresh_database
from tests.support.waiting import until
from tests.support.workers import ready, started, states


@pytest.fixture
def elsewhere(home: Path) -> Iterator[database.Sessions]:
    """Sessions on another farm's database."""
    with fresh_database(home) as url:
        engine = database.connect(url)
        sessions = database.sessions(engine)
        transact(sessions, lambda session: session.execute(text("UPDATE farm SET id = gen_random_uuid()")))
        yield sessions
        engine.dispose()


@pytest.fixture(params=["", "?db=3"], ids=["one database", "a database each"])
def other_url(request, redis_url: str) -> str:
    return redis_url + request.param


@pytest.fixture
def there(other_url, elsewhere) -> Iterator[Events]:
    made = Events(other_url, farm_id(elsewhere))
    yield made
    made.close()


@pytest.fixture
def here(redis_url, farm_id) -> Iterator[Events]:
    made = Events(redis_url, farm_id)
    yield made
    made.close()


def test_events_and_orders_stay_in_their_farm(here, there):
    heard = []
    here.listen_cancels(heard.append)
    here.listen_rescans(lambda: heard.append("rescan"))
    with here.subscribe() as subscription, there.subscribe(1) as theirs:
        there.announce_cancel({1: 1})
        there.announce_rescan()
        there.publish(JobChanged(1, "cancelled"))
        assert theirs.get(5).event == JobChanged(1, "cancelled")  # all of it has left by now
        here.announce_cancel({2: 1})
        here.publish(JobChanged(2, "open"))
        assert subscription.get(5).event == JobChanged(2, "open")
        until(lambda: heard)
    assert heard == [{2: 1}]
    assert here.replay(1, "0") == []


def test_previews_and_progress_stay_in_their_farm(here, there):
    there.put_preview(1, 0, b"theirs")
    assert there.flush()
    assert there.preview(1, 0) == b"theirs"
    assert here.preview(1, 0) is None


def test_snapshots_and_errors_of_estimates_stay_in_their_farm(redis_url, other_url, sessions, elsewhere, job_factory):
    job_factory()
    with Redis.from_url(redis_url) as redis, Redis.from_url(other_url) as other:
        assert len(Snapshots(sessions, redis).current().lanes) == 1
        assert Snapshots(elsewhere, other).current().lanes == ()
    for ours, url, error in ((sessions, redis_url, 2.0), (elsewhere, other_url, 9.0)):
        explainer = Explainer(ours, url)
        explainer._redis.lpush(explainer._farm_id.key("estimates:errors"), error)
        assert explainer._errors_of([]) == [error]
        explainer.close()


def test_tickets_and_commands_stay_in_their_farm(environ, sessions, elsewhere, job_factory):
    """A worker is asked to stop, and sent tickets, by another farm: on the same database of Redis, then on another."""
    url, theirs = environ["FARM_REDIS_URL"], farm_id(elsewhere)
    with started(environ, "--slots", "1"), Redis.from_url(url) as redis:
        until(lambda: ready(sessions))
        for other_url in (url, f"{url}?db=3"):
            command(other_url, theirs, "shutdown")
            assert command(other_url, theirs, "ping", timeout=0.2) == []
            send(other_url, theirs, 2)
        until(lambda: command(url, farm_id(sessions), "ping", timeout=1))
        job_factory(count=2)
        until(lambda: states(sessions) == ["succeeded"] * 2)
        assert redis.llen(theirs.key("pool.default")) == 2
        # Whatever a farm at work leaves in Redis, Celery's things too, carries its id.
        prefixes = (theirs.prefix.encode(), farm_id(sessions).prefix.encode())
        names = [*redis.scan_iter(), *redis.pubsub_channels()]
        assert len(names) > 3
        assert [name for name in names if not name.startswith(prefixes)] == []


def command(url: str, ours: FarmId, name: str, **options: object) -> object:
    """Send a command to all workers of a farm, over a connection of its own."""
    app = celery_app(url, ours)
    with app.connection_for_write() as connection:
        return getattr(app.control, name)(connection=connection, **options)


def send(url: str, ours: FarmId, count: int) -> None:
    tickets = Tickets(url, ours)
    tickets.publish("default", count)
    assert tickets.flush(10)
    tickets.close()


def test_two_farms_have_two_ids_and_each_keeps_its_own(sessions, elsewhere, farm_id):
    assert farm_id.value != FarmId(lambda: transact(elsewhere, _read)).value
    assert farm_id.value == transact(sessions, _read)


def _read(session) -> str:
    return session.execute(text("SELECT id FROM farm")).scalar_one()
