"""Pools from end to end: what a job names, what a worker serves."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from shared.admission.scheduling import impossible
from shared.db.tables import Worker
from shared.errors import SettingsError
from shared.messaging import tickets
from shared.params.scheduling import Scheduling
from shared.queue import pools, snapshot
from shared.settings import Limits, load
from tests.conftest import CheckpointFactory
from tests.support.queueing import Farmhand
from tests.support.waiting import until
from tests.support.workers import images, ready, started


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory: CheckpointFactory) -> None:
    checkpoint_factory("demo", native_size=64)


def submit(client, **asked):
    return client.post("/api/v1/jobs", json={"prompt": "sea", "steps": 1} | asked)


def test_job_of_a_pool_is_recorded_and_ticketed_there(client, services, sessions, farm_id):
    job = submit(client, pool="large", count=2).get_json()
    assert job["pool"] == "large"
    assert {image.pool for image in images(sessions, job["id"])} == {"large"}
    services.tickets.flush()
    waiting = [services.events._redis.llen(farm_id.key(tickets.pool_queue(pool))) for pool in ("large", "default")]
    assert waiting == [2, 0]
    assert client.get(job["links"]["self"]).get_json()["waiting"]["text"] == "No worker of the pool large is alive."


def test_retry_brings_tickets_to_the_jobs_own_pool(client, services, farm_id):
    job = submit(client, pool="large").get_json()
    client.post(job["links"]["cancel"])
    client.post(job["links"]["retry"])
    services.tickets.flush()
    assert services.events._redis.llen(farm_id.key(tickets.pool_queue("large"))) == 2


def test_job_that_names_no_pool_is_of_the_default_one(client):
    assert submit(client).get_json()["pool"] == "default"


@pytest.mark.parametrize("pool", ["", "Large", "a b", "x" * 33, "pool,other", None, 7])
def test_name_that_no_pool_can_have_is_refused(client, pool):
    answer = submit(client, pool=pool)
    assert answer.status_code == 422
    [error] = answer.get_json()["errors"]
    assert error["field"] == "pool"
    assert "small letters" in error["accepted"]


def test_the_same_key_with_another_pool_is_a_conflict(client):
    asked = {"prompt": "sea"}
    key = {"Idempotency-Key": "k"}
    answers = [client.post("/api/v1/jobs", json=asked | more, headers=key) for more in ({}, {"pool": "large"})]
    assert [answer.status_code for answer in answers] == [202, 409]


def test_one_owner_waits_for_so_many_pools_that_nobody_serves(client, sessions, monkeypatch):
    monkeypatch.setattr("shared.admission.scheduling.UNSERVED_POOLS", 2)
    hand = Farmhand(sessions)
    hand.worker(pool="default,large")
    hand.worker(pool="gone", lease_seconds=-60)
    assert [submit(client, pool=pool).status_code for pool in ("one", "large", "gone")] == [202] * 3
    answer = submit(client, pool="two")
    assert answer.status_code == 422
    [error] = answer.get_json()["errors"]
    assert error == {
        "field": "pool",
        "message": "no living worker serves it, and your jobs wait for 2 such pools already",
        "accepted": "a pool that living workers serve: default, large",
    }
    assert [submit(client, pool=pool).status_code for pool in ("one", "gone", "large", "default")] == [202] * 4
    hand.worker(pool="gone")
    assert submit(client, pool="two").status_code == 202
    assert submit(client, pool="three").status_code == 422


def test_a_submission_to_a_pool_that_is_away_looks_at_the_latest_of_its_owners_jobs(sessions):
    many = """
        INSERT INTO jobs (owner, params, state, checkpoint, count, unfinished, pool)
        SELECT 'ann', '{}', 'open', 'c', 1, 1, 'away' FROM generate_series(1, 3000)
    """
    read = """
        SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))
        FROM pg_stat_xact_user_tables
        WHERE relname IN ('jobs', 'images')
    """
    with sessions.begin() as session:
        session.execute(text(many))
        session.execute(text("ANALYZE jobs, images"))
    with sessions.begin() as session:
        before = session.scalar(text(read))
        assert impossible(session, "ann", Scheduling(pool="away"), Limits()) == []
        assert session.scalar(text(read)) - before <= 2
        assert not pools.is_awaited(session, "ann", "other")
        assert not pools.is_awaited(session, "bob", "away")


def test_pools_of_held_jobs_count_and_those_of_others_and_of_ended_ones_do_not(
    client, sessions, job_factory, monkeypatch
):
    monkeypatch.setattr("shared.admission.scheduling.UNSERVED_POOLS", 1)
    job_factory(owner="somebody else", scheduling={"pool": "other"})
    job = submit(client, pool="one", hold=True).get_json()
    assert submit(client, pool="two", hold=True).status_code == 422
    client.post(job["links"]["cancel"])
    assert submit(client, pool="two").status_code == 202


def test_a_farm_without_workers_takes_jobs_of_the_usual_pool(client, monkeypatch):
    monkeypatch.setattr("shared.admission.scheduling.UNSERVED_POOLS", 1)
    assert [submit(client, pool=pool).status_code for pool in ("default", "one")] == [202, 202]
    refused = submit(client, pool="two").get_json()["errors"]
    assert [error["accepted"] for error in refused] == ["a pool that living workers serve: there is none now"]
    assert submit(client, expires_at="2100-01-01T00:00:00Z").status_code == 202


@pytest.mark.parametrize(("given", "names"), [("", ("default",)), ("large", ("large",)), (" b, a ,b", ("b", "a"))])
def test_setting_names_the_pools(given, names):
    assert load({"FARM_POOLS": given}).pool_names == names


@pytest.mark.parametrize("given", ["Large", "a,,b", "a b"])
def test_setting_of_no_pool_is_refused(given):
    with pytest.raises(SettingsError, match="FARM_POOLS"):
        load({"FARM_POOLS": given})


def test_snapshot_reads_the_pools_of_a_worker(sessions, job_factory):
    hand = Farmhand(sessions)
    worker = hand.worker(pool="default,large")
    worker.heartbeat()
    job_factory(scheduling={"pool": "large"})
    job_factory(scheduling={"pool": "other"})
    [seen] = hand.run(snapshot.take).farm.workers
    assert seen.pools == ("default", "large")
    assert worker.claim() is not None
    assert worker.claim() is None, "the other pool is not its own"


def test_worker_takes_the_tickets_of_all_its_pools_and_of_no_other(environ, sessions, client, tmp_path):
    jobs = {pool: submit(client, pool=pool).get_json() for pool in ("default", "large", "other")}
    # It looks but once a minute: what it renders before, tickets have brought.
    settings = environ | {"FARM_POOLS": "default,large", "FARM_LOOK_SECONDS": "60"}
    with started(settings, "--card", "cpu:0", log=tmp_path / "log"):
        until(lambda: ready(sessions), 60)
        later = {pool: submit(client, pool=pool).get_json() for pool in ("large", "default", "other")}
        wanted = [made[pool]["id"] for made in (jobs, later) for pool in ("default", "large")]
        until(lambda: all(image.state == "succeeded" for job in wanted for image in images(sessions, job)), 60)
        assert [image.state for made in (jobs, later) for image in images(sessions, made["other"]["id"])] == [
            "queued"
        ] * 2
        with sessions() as session:
            assert [row.pool for row in session.query(Worker)] == ["default,large"]
