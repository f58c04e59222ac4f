"""Health and numbers, for orchestrators and Prometheus."""

from __future__ import annotations

import re
import socket
import time
from threading import Event

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from api import background_polls, readiness
from api.app import create_app
from api.readiness import OK, Readiness
from api.services import EXTENSION
from cli import farm_checks
from shared.errors import StorageAway, StorageError
from shared.maintenance.restored_database import keep_ids_ahead
from shared.media.storage import Storage, key
from tests.support.queueing import Farmhand
from tests.support.waiting import until


@pytest.fixture
def elsewhere(settings):
    """Makes the client of a farm with some servers elsewhere."""
    made = []

    def make(**changes: str):
        app = create_app(settings.model_copy(update=changes))
        made.append(app)
        return app.test_client()

    yield make
    for app in made:
        app.extensions[EXTENSION].close()


def numbers(client) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_farm_with_all_its_parts_is_ready(client):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    ok = dict.fromkeys(("database", "migrations", "storage", "redis"), "ok")
    told = answer.get_json()
    assert (told["status"], told["checks"], told["ages"].keys()) == ("ready", ok, ok.keys())
    assert all(0 <= age < 10 for age in told["ages"].values())


def test_farm_without_redis_is_degraded_and_takes_jobs(elsewhere, tmp_path, checkpoint_factory):
    checkpoint_factory()
    client = elsewhere(redis_url=f"unix://{tmp_path / 'nobody'}")
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.get_json()["status"] == "degraded"
    assert "Redis" in answer.get_json()["checks"]["redis"]
    job = client.post("/api/v1/jobs", json={})
    assert job.status_code == 202
    assert client.get(job.headers["Location"]).status_code == 200
    assert client.post(job.headers["Location"] + "/cancel").status_code == 200


def test_farm_without_its_database_is_not_ready(elsewhere, tmp_path):
    client = elsewhere(database_url=f"postgresql:///stepfarm?host={tmp_path}")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["checks"]["database"] != "ok"
    assert answer.get_json()["checks"]["storage"] == "ok"
    assert client.get("/livez").status_code == 200
    jobs = client.get("/api/v1/jobs")
    assert jobs.status_code == 503
    assert jobs.mimetype == "application/problem+json"
    assert int(jobs.headers["Retry-After"]) > 0
    assert numbers(client)["farm_up",] == 0


def test_farm_with_older_tables_is_not_ready(client, sessions):
    with sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "farm db upgrade" in answer.get_json()["checks"]["migrations"]


@pytest.mark.parametrize(
    ("revision", "status"), [("9999", 200), ("0001", 503), ("deadbeef", 503)], ids=["newer", "older", "foreign"]
)
def test_farm_whose_tables_a_newer_version_has_upgraded_stays_ready(client, sessions, settings, revision, status):
    with sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
    assert client.get("/readyz").status_code == status
    assert (farm_checks.migrations(settings).level == "fine") is (status == 200)


def test_farm_that_cannot_store_is_not_ready_and_only_its_log_says_why(elsewhere, tmp_path, capsys):
    (tmp_path / "file").touch()
    client = elsewhere(storage_url=str(tmp_path / "file" / "pictures"))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["checks"]["storage"] != "ok"
    assert "storing check-" not in answer.text
    assert "storing check-" in capsys.readouterr().out


def test_a_part_that_stays_away_is_logged_when_it_goes_and_when_it_is_back(services, monkeypatch, capsys):
    answers = iter([StorageError("no route")] * 3 + [None] * 2)

    def check(_):
        if answer := next(answers):
            raise answer

    monkeypatch.setattr(type(services.storage), "check", check)
    looked = Readiness(services.sessions, services.storage, services.events)
    assert [looked.check("storage") == OK for _ in range(5)] == [False, False, False, True, True]
    logged = capsys.readouterr().out
    assert [logged.count(line) for line in ("not ready", "no route", "ready again")] == [1, 1, 1]


def test_a_storage_that_hangs_is_told_with_its_seconds_and_holds_nobody_up(client, services, monkeypatch):
    gate = Event()
    monkeypatch.setattr(background_polls, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(readiness, "_SILENT_SECONDS", 0.2)
    monkeypatch.setattr(type(services.storage), "check", lambda *_: gate.wait(120))
    for _ in range(3):
        answer = client.get("/readyz")
        assert answer.status_code == 503
    told = answer.get_json()
    assert re.fullmatch(r"has not answered for \d+ s", told["checks"].pop("storage"))
    assert told["ages"].pop("storage") is None
    assert set(told["checks"].values()) == {"ok"}  # all parts are looked at side by side
    started = time.monotonic()
    for _ in range(40):
        client.get("/readyz")
    assert time.monotonic() - started < 40 * 0.3
    gate.set()
    until(lambda: client.get("/readyz").status_code == 200)


def test_an_object_store_that_is_silent_stops_nobody(elsewhere, monkeypatch):
    monkeypatch.setattr(background_polls, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "farm")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "farm-secret")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = elsewhere(storage_url=f"s3://pictures?endpoint_url={endpoint}&region_name=us-east-1")
        started = time.monotonic()
        for _ in range(40):
            answer = client.get("/readyz")
            assert answer.status_code == 503
            assert client.get("/livez").status_code == 200
            assert client.get("/workers").status_code == 200
        assert time.monotonic() - started < 20
        told = answer.get_json()["checks"]
        assert told.pop("storage").startswith("has not answered for ")
        assert set(told.values()) == {"ok"}


def test_why_the_storage_takes_nothing_is_told_without_its_address(client, services, monkeypatch):
    def away(*_):
        raise StorageAway("storing check-1", "the object store does not answer", detail="http://10.0.0.7:9000/secret")

    monkeypatch.setattr(type(services.storage), "check", away)
    answer = client.get("/readyz")
    assert answer.get_json()["checks"]["storage"] == "the storage takes no pictures: the object store does not answer"
    shown = client.get("/workers").text
    assert "10.0.0.7" not in answer.text + shown


def test_a_database_that_is_older_than_the_pictures_gives_no_id_again(client, services, sessions, checkpoint_factory):
    checkpoint_factory()
    services.storage.check()  # marks it
    for job_id in (3, 4711):
        services.storage.put(key(job_id, 0, 1, "picture"), b"of a job that this database has forgotten")
    assert client.post("/api/v1/jobs", json={}).get_json()["id"] > 4711
    first = keep_ids_ahead(sessions, services.storage)
    assert first is None  # they are ahead


@pytest.mark.parametrize("last", [0, 1, 2, 1000, 1001])
def test_ids_go_on_behind_what_the_storage_holds(services, sessions, job_factory, last):
    jobs = [job_factory().id for _ in range(2)] if last == 2 else []
    if last:
        Storage(services.storage.url).put(key(last, 0, 1, "picture"), b"picture")
    moved = keep_ids_ahead(sessions, services.storage)
    assert (moved is None) is (last in {0, *jobs})
    assert job_factory().id > last


def test_numbers_tell_what_waits_and_runs(client, job_factory, sessions):
    job_factory(count=3)
    Farmhand(sessions).worker().claim()
    told = numbers(client)
    assert told["farm_images", "queued"] == 2
    assert told["farm_images", "running"] == 1
    assert told["farm_workers", "starting"] == 1
    assert 0 <= told["farm_queue_oldest_seconds",] < 60
    assert told["farm_up",] == 1


def test_numbers_tell_of_calls_that_broke_on_each_card(client, sessions):
    farmhand = Farmhand(sessions)
    one, other, silent = (farmhand.worker() for _ in range(3))
    one.heartbeat(broken_calls={"out of memory": 3, "error": 0})
    other.heartbeat(broken_calls={"error": 2})
    silent.heartbeat()
    told = numbers(client)
    assert told["farm_broken_calls_total", *sorted((one.name, "out of memory"))] == 3
    assert told["farm_broken_calls_total", *sorted((other.name, "error"))] == 2
    assert not [key for key in told if silent.name in key]


def test_two_starts_of_one_worker_are_one_line_of_the_numbers(client, sessions):
    """A worker that died is in the table until it is declared dead, beside the one that took its place."""
    farmhand = Farmhand(sessions)
    dead = farmhand.worker()
    farmhand.numbers = iter([int(dead.name.rpartition(":")[2])])
    heir = farmhand.worker()
    for worker in (dead, heir):
        worker.heartbeat(broken_calls={"error": 2})
    assert dead.name == heir.name
    assert client.get("/metrics").text.count("farm_broken_calls_total{") == 1
    assert numbers(client)["farm_broken_calls_total", *sorted((dead.name, "error"))] == 4


def test_numbers_count_requests_by_route(client, job_factory):
    job = job_factory()
    for job_id in (job.id, job.id, 999):
        client.get(f"/api/v1/jobs/{job_id}")
    client.get("/api/v1/nothing/1")
    told = numbers(client)
    route = "/api/v1/jobs/<id:job_id>"
    assert told["farm_requests_total", *sorted((route, "GET", "200"))] == 2
    assert told["farm_requests_total", *sorted((route, "GET", "404"))] == 1
    assert told["farm_requests_total", *sorted(("none", "GET", "404"))] == 1
    assert told["farm_request_seconds_count", route] == 3
