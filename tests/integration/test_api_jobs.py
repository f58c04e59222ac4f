"""Jobs over HTTP: what a program submits, sees and changes."""

from __future__ import annotations

import threading
import time

import pytest
from flask.testing import FlaskClient
from redis.connection import AbstractConnection
from sqlalchemy import update
from werkzeug.test import TestResponse

from api.security import auth
from api.services import Services
from shared.accounts.principal import Principal, Role
from shared.admission.parse import parse
from shared.db.sessions import Sessions, transact
from shared.db.tables import Job, ModelFile
from shared.errors import StorageError
from shared.media.storage import job_prefix, key
from shared.params.render import RenderParams
from shared.queue import transitions
from shared.settings import Limits
from tests.conftest import CheckpointFactory, JobFactory
from tests.support.queueing import Farmhand
from tests.support.statements import statements
from tests.support.waiting import until

PROMPT = "a photo of the sea at night"


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory: CheckpointFactory) -> None:
    checkpoint_factory("demo", native_size=64)


def submit(client: FlaskClient, /, headers: dict[str, str] | None = None, **params: object) -> TestResponse:
    return client.post("/api/v1/jobs", json={"prompt": PROMPT} | params, headers=headers)


def test_submission_is_accepted_with_the_jobs_address(client):
    answer = submit(client, seed=7, count=2)
    assert answer.status_code == 202
    job = answer.get_json()
    assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}" == job["links"]["self"]
    assert job["state"] == "queued"
    assert job["params"]["prompt"] == PROMPT
    assert [image["seed"] for image in job["images"]] == [7, 8]
    assert job["counts"] == {"held": 0, "queued": 2, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}


def test_submission_writes_and_reads_its_job_by_three_statements(client, services):
    with statements(services.sessions) as asked:
        submit(client, count=4)

    of_a_job = ("INSERT INTO", "WITH noted", "SELECT jobs.id, jobs.owner", "SELECT images.id", "SELECT head.job_id")
    sent = [" ".join(one.split()) for one in asked]
    verbs = [next((verb for verb in of_a_job if one.startswith(verb)), None) for one in sent]
    expected = ["INSERT INTO", "WITH noted", "SELECT head.job_id"]
    assert [verb for verb in verbs if verb] == expected


def test_submission_shows_its_job_as_it_is_read_afterwards(client):
    submit(client, count=2)
    sent = submit(client, count=101, hold=False)
    read = client.get(sent.headers["Location"]).get_json()
    told = sent.get_json()
    assert {name for name in told if told[name] != read[name]} <= {"notes", "waiting"}
    assert (told["position"], len(told["images"]), told["next"]) == (2, 100, 99)


def test_what_was_left_open_is_resolved(client):
    params = submit(client).get_json()["params"]
    assert params["checkpoint"].startswith("demo [")
    assert (params["width"], params["height"]) == (64, 64)
    assert 0 <= params["seed"] < 2**32


def test_the_model_files_that_were_resolved_stay_with_the_job(client, sessions, checkpoint_factory):
    white = checkpoint_factory("white", path="VAE/white.safetensors", kind="vae")
    demo = submit(client, vae="white").get_json()
    job = Farmhand(sessions).job(demo["id"])
    assert job.models == {"checkpoint": job.checkpoint, "vae": white.sha256}


def test_same_idempotency_key_and_body_is_the_same_job(client):
    first = submit(client, {"Idempotency-Key": "k-1"})
    again = submit(client, {"Idempotency-Key": "k-1"})
    assert again.status_code == 202
    assert again.get_json()["id"] == first.get_json()["id"]
    assert len(client.get("/api/v1/jobs").get_json()["jobs"]) == 1


def test_same_idempotency_key_with_another_body_is_a_conflict(client):
    submit(client, {"Idempotency-Key": "k-1"})
    answer = submit(client, {"Idempotency-Key": "k-1"}, steps=3)
    assert answer.status_code == 409
    assert "k-1" in answer.get_json()["detail"]


def test_request_that_comes_again_is_not_refused_for_what_has_changed_since(client, sessions):
    first = submit(client, {"Idempotency-Key": "k-1"})
    with sessions.begin() as session:
        session.execute(update(ModelFile).values(usable=False, reason="gone"))
    again = submit(client, {"Idempotency-Key": "k-1"})
    assert again.get_json()["id"] == first.get_json()["id"]
    assert submit(client, {"Idempotency-Key": "k-2"}).status_code == 422


@pytest.mark.parametrize("names", [{"sampler": "Tomorrow"}, {"schedule": "dawn"}, {"hires": {"upscaler": "Dream"}}])
def test_a_request_of_a_newer_version_that_comes_again_is_its_job_though_a_name_is_unknown(client, sessions, names):
    first = submit(client, {"Idempotency-Key": "k-1"}).get_json()["id"]
    request = parse({"prompt": PROMPT} | names, "local", Limits())
    with sessions.begin() as session:
        session.execute(update(Job).values(idempotency_digest=request.digest))
    again = submit(client, {"Idempotency-Key": "k-1"}, **names)
    assert (again.status_code, again.get_json().get("id")) == (202, first)
    assert submit(client, {"Idempotency-Key": "k-2"}, **names).status_code == 422
    assert submit(client, {"Idempotency-Key": "k-1"}, steps=3, **names).status_code == 409
    assert submit(client, {"Idempotency-Key": "k-1"}, steps="x", **names).status_code == 422


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 201, "tab\there"])
def test_idempotency_key_that_cannot_be_used_is_refused(client, key):
    answer = submit(client, {"Idempotency-Key": key})
    assert answer.status_code == 422
    (error,) = answer.get_json()["errors"]
    assert error["field"] == "Idempotency-Key"
    assert "ASCII" in error["accepted"]


def test_tickets_are_published_after_the_commit(client, services, monkeypatch):
    seen = []
    monkeypatch.setattr(type(services.tickets), "publish", lambda self, pool, n: seen.append((pool, n)))
    submit(client, count=3)
    assert seen == [("default", 3)]


def test_door_leaves_redis_to_threads_of_its_own(client, services, monkeypatch):
    speakers = set()
    send = AbstractConnection.send_packed_command

    def noted(self, *arguments, **options):
        speakers.add(threading.current_thread())
        return send(self, *arguments, **options)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", noted)
    submit(client)
    assert services.tickets.flush()
    assert speakers
    assert threading.current_thread() not in speakers


def test_waiting_ends_with_the_job(client, sessions):
    def render():
        hand = Farmhand(sessions)
        hand.finish(until(hand.worker().claim))

    worker = threading.Thread(target=render)
    worker.start()
    answer = submit(client, {"Prefer": "wait=60"})
    worker.join()
    assert answer.status_code == 200
    assert answer.get_json()["state"] == "succeeded"
    assert answer.get_json()["progress"] == 1


def test_waiting_ends_with_the_time_when_nobody_renders(client):
    began = time.monotonic()
    answer = submit(client, {"Prefer": "wait=1"})
    assert time.monotonic() - began >= 1
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=1"


def test_waiting_for_a_job_that_has_ended_answers_at_once(client):
    job = submit(client, {"Idempotency-Key": "k"}).get_json()
    client.post(job["links"]["cancel"])
    answer = submit(client, {"Idempotency-Key": "k", "Prefer": "respond-async, wait=60"})
    assert answer.status_code == 200
    assert answer.get_json()["state"] == "cancelled"


def test_waiting_is_passed_over_when_all_places_are_taken(client, services):
    while services.waits.take("local"):
        pass
    answer = submit(client, {"Prefer": "wait=60"})
    assert answer.status_code == 202
    assert "Preference-Applied" not in answer.headers


def test_list_goes_page_by_page_from_the_latest(client):
    ids = [submit(client).get_json()["id"] for _ in range(5)]
    first = client.get("/api/v1/jobs?limit=3").get_json()
    rest = client.get(f"/api/v1/jobs?limit=3&cursor={first['next']}").get_json()
    assert [job["id"] for job in first["jobs"] + rest["jobs"]] == ids[::-1]
    assert rest["next"] is None


def test_list_shows_the_states_that_were_asked_for(client):
    waiting, cancelled = (submit(client).get_json() for _ in range(2))
    client.post(cancelled["links"]["cancel"])

    def listed(query: str) -> list[int]:
        return [job["id"] for job in client.get(f"/api/v1/jobs?{query}").get_json()["jobs"]]

    assert listed("state=cancelled") == [cancelled["id"]]
    assert listed("state=queued") == [waiting["id"]]
    assert listed("state=queued&state=cancelled") == [cancelled["id"], waiting["id"]]
    assert listed("state=running") == []


def test_unchanged_job_is_not_sent_again(client):
    link = submit(client).get_json()["links"]["self"]
    tag = client.get(link).headers["ETag"]
    assert tag.startswith("W/")
    unchanged = client.get(link, headers={"If-None-Match": tag})
    assert unchanged.status_code == 304
    assert not unchanged.data
    client.post(f"{link}/cancel")
    assert client.get(link, headers={"If-None-Match": tag}).status_code == 200


def test_cancel_ends_the_whole_job(client):
    job = submit(client, count=3).get_json()
    answer = client.post(job["links"]["cancel"])
    assert answer.status_code == 200
    assert answer.get_json()["images"] == 3
    assert answer.get_json()["job"]["state"] == "cancelled"


def test_second_cancel_is_a_conflict_that_says_the_state(client):
    job = submit(client).get_json()
    client.post(job["links"]["cancel"])
    answer = client.post(job["links"]["cancel"])
    assert answer.status_code == 409
    assert "cancelled" in answer.get_json()["detail"]


def test_one_image_is_cancelled_alone_and_retried(client):
    link = submit(client, count=2).get_json()["links"]["self"]
    assert client.post(f"{link}/images/1/cancel").get_json()["images"] == 1
    job = client.get(link).get_json()
    assert [image["state"] for image in job["images"]] == ["queued", "cancelled"]
    assert client.post(f"{link}/images/1/retry").get_json()["job"]["counts"]["queued"] == 2


def test_cancel_of_a_running_image_tells_its_worker(client, services, sessions, monkeypatch):
    told = []
    monkeypatch.setattr(type(services.events), "announce_cancel", lambda self, attempts: told.append(attempts))
    job = submit(client).get_json()
    claim = Farmhand(sessions).worker().claim()
    client.post(job["links"]["cancel"])
    assert told == [{claim.image_id: claim.attempt}]


def test_retry_of_what_waits_is_a_conflict(client):
    answer = client.post(submit(client).get_json()["links"]["retry"])
    assert answer.status_code == 409
    assert "queued" in answer.get_json()["detail"]


def test_delete_takes_the_job_and_its_pictures(client, services, sessions):
    job = submit(client).get_json()
    claim = Farmhand(sessions).worker().claim()
    stored = key(job["id"], 0, claim.attempt, "picture")
    services.storage.put(stored, b"png")
    transact(sessions, lambda session: transitions.finish(session, claim, 3))
    assert client.delete(job["links"]["self"]).status_code == 204
    assert client.get(job["links"]["self"]).status_code == 404
    assert not services.storage.exists(stored)


def test_delete_succeeds_where_the_storage_is_away_and_the_log_names_what_is_left(
    client, services, monkeypatch, capsys
):
    job = submit(client).get_json()

    def fail(*_: object) -> None:
        raise StorageError("the bucket does not answer")

    monkeypatch.setattr(type(services.storage), "delete", fail)
    assert client.delete(job["links"]["self"]).status_code == 204
    assert client.get(job["links"]["self"]).status_code == 404
    logged = capsys.readouterr().out
    assert job_prefix(job["id"]) in logged
    assert "the bucket does not answer" in logged


def test_submission_under_a_key_is_parsed_once(client, monkeypatch):
    parsed, parse = [], RenderParams.model_validate
    monkeypatch.setattr(RenderParams, "model_validate", lambda given: parsed.append(given) or parse(given))
    headers = {"Idempotency-Key": "once"}
    assert client.post("/api/v1/jobs", json={"prompt": "x"}, headers=headers).status_code == 202
    assert parsed.count({"prompt": "x"}) == 1


def test_delete_of_a_running_job_is_a_conflict(client, sessions):
    job = submit(client).get_json()
    Farmhand(sessions).worker().claim()
    answer = client.delete(job["links"]["self"])
    assert answer.status_code == 409
    assert "cancel" in answer.get_json()["detail"]


def test_jobs_of_others_do_not_exist_for_a_user(
    client, job_factory: JobFactory, services: Services, sessions: Sessions, monkeypatch
):
    monkeypatch.setattr(auth, "LOCAL", Principal("local", Role.USER))
    other = job_factory(owner="ann")
    assert client.get(f"/api/v1/jobs/{other.id}").status_code == 404
    for method, path in (
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/images/0/cancel"),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/zip"),
        ("GET", "/images/0/picture.png"),
        ("GET", "/images/0/preview.webp"),
    ):
        assert client.open(f"/api/v1/jobs/{other.id}{path}", method=method).status_code == 404, path
    assert client.get("/api/v1/jobs").get_json()["jobs"] == []
