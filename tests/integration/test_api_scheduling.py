"""Deadlines and holding over HTTP: what a submission takes beside its parameters, and the moves of a held job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from sqlalchemy import update

from api.app import create_app
from api.security import auth
from api.services import EXTENSION
from shared.accounts.principal import Principal, Role
from shared.db.sessions import transact
from shared.db.tables import Image, Job
from shared.params.scheduling import Scheduling
from shared.params.table import parameters
from shared.queue import deadlines
from shared.settings import load
from tests.support.queueing import Farmhand
from tests.support.workers import images

SOON = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
LATER = SOON + timedelta(hours=1)


@pytest.fixture(autouse=True)
def checkpoint(checkpoint_factory):
    return checkpoint_factory("demo", native_size=64)


@pytest.fixture
def submit(client):
    def ask(status: int = 202, key: str | None = None, **body):
        headers = {"Idempotency-Key": key} if key else {}
        answer = client.post("/api/v1/jobs", json={"prompt": "sea", "steps": 4} | body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.get_json()

    return ask


@pytest.fixture
def keyed(settings):
    """Makes a client of the same farm with keys, who submits as `ann`; its urgent owners are given."""
    apps = []

    def make(urgent_owners: str):
        keys = {"ann-long-key": "ann", "bob-long-key": "bob", "cem-long-key": "cem"}
        apps.append(create_app(settings.model_copy(update={"api_keys": keys, "urgent_owners": urgent_owners})))
        return apps[-1].test_client()

    yield make
    for app in apps:
        app.extensions[EXTENSION].close()


def test_a_job_takes_its_deadline_beside_its_parameters_and_tells_it(submit):
    job = submit(expires_at=SOON.isoformat(), count=2)

    assert datetime.fromisoformat(job["expires_at"]) == SOON
    assert [datetime.fromisoformat(image["expires_at"]) for image in job["images"]] == [SOON, SOON]
    assert "expires_at" not in job["params"]
    assert submit()["expires_at"] is None


def test_scheduling_is_read_from_the_job_whatever_becomes_of_its_images(submit, client, sessions):
    job = submit(pool="large", priority=7, urgent=True, expires_at=SOON.isoformat(), count=2)
    change = update(Image).values(pool="default", priority=0, urgent=False, expires_at=None)
    transact(sessions, lambda session: session.execute(change))

    for seen in (client.get(job["links"]["self"]).get_json(), client.get("/api/v1/jobs").get_json()["jobs"][0]):
        assert (seen["pool"], seen["priority"], seen["urgent"]) == ("large", 7, True)
        assert datetime.fromisoformat(seen["expires_at"]) == SOON


def test_a_deadline_that_has_passed_is_over_for_the_job_once_a_part_of_it_is_retried(submit, client, sessions):
    job = submit(expires_at=SOON.isoformat(), count=2)
    passed = SOON - timedelta(hours=2)
    for table in (Job, Image):
        transact(sessions, lambda session, table=table: session.execute(update(table).values(expires_at=passed)))
    transact(sessions, deadlines.move_due)

    client.post(f"/api/v1/jobs/{job['id']}/images/0/retry")

    again = client.get(job["links"]["self"]).get_json()
    assert [image["state"] for image in again["images"]] == ["queued", "cancelled"]
    assert again["expires_at"] is None
    assert "Cancelled if it has not started by" not in client.get(f"/jobs/{job['id']}").text


@pytest.mark.parametrize(
    "given",
    [{"hold": True}, {"hold_until": LATER.isoformat()}, {"hold_behind": 1}],
    ids=["by hand", "until a time", "behind a job"],
)
def test_a_job_keeps_how_it_was_held(submit, sessions, given):
    submit(hold=True)
    job = Farmhand(sessions).job(submit(**given)["id"])
    until = LATER if "hold_until" in given else None
    assert (job.hold, job.hold_until, job.hold_behind) == ("hold" in given, until, given.get("hold_behind"))


@pytest.mark.parametrize(
    ("scheduling", "reason"),
    [
        ({"hold": True}, "held by local"),
        ({"hold_until": "2100-01-31T06:00:00+03:00"}, "held until 2100-01-31 03:00 UTC"),
        ({"hold_behind": 1}, "held behind job 1"),
    ],
)
def test_a_held_job_says_why_and_has_no_tickets(submit, services, redis_url, scheduling, reason):
    assert submit(hold=True)["id"] == 1

    job = submit(count=2, **scheduling)

    assert job["state"] == "held"
    assert job["counts"]["held"] == 2
    assert {image["reason"] for image in job["images"]} == {reason}
    assert services.tickets.flush()
    with Redis.from_url(redis_url) as redis:
        assert list(redis.scan_iter("*pool.default")) == []


@pytest.mark.parametrize(
    ("scheduling", "problems"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "2020-01-01 00:00 UTC has passed"}),
        ({"hold_until": "2020-01-01T00:00:00Z"}, {"hold_until": "2020-01-01 00:00 UTC has passed"}),
        ({"expires_at": "2100-01-01T00:00:00"}, {"expires_at": "has no time zone"}),
        ({"expires_at": "tomorrow"}, {"expires_at": "is not an instant in ISO 8601"}),
        ({"expires_at": 4102444800}, {"expires_at": "must be an instant, written as text"}),
        ({"priority": 101}, {"priority": "101 is too large"}),
        ({"priority": -101}, {"priority": "-101 is too small"}),
        ({"priority": "high"}, {"priority": "must be a whole number, not the text 'high'"}),
        ({"priority": True}, {"priority": "must be a whole number, not true"}),
        ({"urgent": 1}, {"urgent": "must be true or false, not 1"}),
        ({"hold": "yes"}, {"hold": "must be true or false, not the text 'yes'"}),
        ({"hold_behind": 4711}, {"hold_behind": "there is no job 4711"}),
        ({"hold_behind": 2**70}, {"hold_behind": "a number of many digits is too large"}),
        ({"hold_behind": "3"}, {"hold_behind": "must be a whole number, not the text '3'"}),
        ({"hold": True, "hold_until": SOON.isoformat()}, {"hold_until": "cannot be combined with hold"}),
        (
            {"expires_at": SOON.isoformat(), "hold_until": LATER.isoformat()},
            {"expires_at": "is not after hold_until, so no image could start"},
        ),
        (
            {"expires_at": "soon", "hold_behind": 0, "steps": 0, "cfg": 7},
            {
                "steps": "0 is too small",
                "cfg": "is not a parameter",
                "expires_at": "is not an instant in ISO 8601",
                "hold_behind": "0 is too small",
            },
        ),
    ],
)
def test_impossible_scheduling_is_refused_field_by_field(submit, scheduling, problems):
    errors = submit(422, **scheduling)["errors"]

    assert {error["field"]: error["message"] for error in errors} == problems
    assert all(error["accepted"] for error in errors)


def test_a_job_cannot_be_held_behind_somebody_else_s(submit, job_factory):
    theirs = job_factory(owner="eve")

    [error] = submit(422, hold_behind=theirs.id)["errors"]

    assert (error["field"], error["message"]) == ("hold_behind", f"there is no job {theirs.id}")


def test_an_idempotency_key_covers_the_scheduling(submit):
    job = submit(key="once", expires_at=SOON.isoformat())

    assert submit(key="once", expires_at=SOON.isoformat())["id"] == job["id"]
    assert "came with another request" in submit(409, key="once")["detail"]
    assert "came with another request" in submit(409, key="once", expires_at=LATER.isoformat())["detail"]
    for more in ({"priority": 1}, {"urgent": True}):
        assert "came with another request" in submit(409, key="once", expires_at=SOON.isoformat(), **more)["detail"]


def test_priority_and_urgency_reach_the_queue_and_are_told(client, submit, sessions):
    usual, asked = submit(), submit(priority=-7, urgent=True, count=2)

    assert [(job["priority"], job["urgent"]) for job in (usual, asked)] == [(0, False), (-7, True)]
    assert [(image.priority, image.urgent) for image in images(sessions, asked["id"])] == [(-7, True)] * 2
    again = client.get(asked["links"]["self"]).get_json()
    assert (again["priority"], again["urgent"]) == (-7, True)
    assert {"priority", "urgent"}.isdisjoint(again["params"])
    assert (usual["position"], client.get(usual["links"]["self"]).get_json()["position"]) == (0, 2)


@pytest.mark.parametrize(
    ("urgent_owners", "refusals"),
    [
        ("", dict.fromkeys(("ann", "bob", "cem"), "no jobs may be urgent here")),
        ("ann", dict.fromkeys(("bob", "cem"), "only jobs of ann may be urgent here")),
        ("bob, ann", {"cem": "only jobs of bob and ann may be urgent here"}),
        ("*", {}),
    ],
)
def test_with_keys_only_jobs_of_the_owners_that_the_setting_names_may_be_urgent(keyed, urgent_owners, refusals):
    client = keyed(load({"FARM_URGENT_OWNERS": urgent_owners}).urgent_owners)
    for owner in ("ann", "bob", "cem"):
        answer = client.post(
            "/api/v1/jobs",
            json={"prompt": "sea", "urgent": True, "priority": 5},
            headers={"X-API-Key": f"{owner}-long-key"},
        )
        if owner not in refusals:
            assert answer.status_code == 202, answer.text
            continue
        assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")
        [error] = answer.get_json()["errors"]
        assert (error["field"], error["message"]) == ("urgent", refusals[owner])
        assert "FARM_URGENT_OWNERS" in error["accepted"]


def test_who_may_not_be_urgent_may_have_a_priority(keyed):
    body = {"prompt": "sea", "urgent": False, "priority": 5}
    answer = keyed("ann").post("/api/v1/jobs", json=body, headers={"X-API-Key": "bob-long-key"})
    assert (answer.status_code, answer.get_json()["priority"]) == (202, 5)


def test_an_urgent_job_that_comes_again_under_its_key_is_not_refused_for_what_has_changed_since(keyed):
    headers = {"X-API-Key": "bob-long-key", "Idempotency-Key": "once"}
    answers = [
        keyed(named).post("/api/v1/jobs", json={"prompt": "sea", "urgent": True}, headers=headers)
        for named in ("bob", "ann")
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].get_json()["id"] == answers[1].get_json()["id"]


def test_hold_and_release_move_a_job_and_bring_its_tickets(client, submit, services, redis_url):
    job = submit(count=2)
    assert services.tickets.flush()

    held = client.post(job["links"]["hold"]).get_json()
    assert (held["images"], held["job"]["state"]) == (2, "held")
    assert held["job"]["images"][0]["reason"] == "held by local"
    with Redis.from_url(redis_url) as redis:
        (queue,) = redis.scan_iter("*:pool.default")
        redis.delete(queue)
        released = client.post(job["links"]["release"]).get_json()
        assert services.tickets.flush()
        assert redis.llen(queue) == 2
    assert (released["images"], released["job"]["state"]) == (2, "queued")
    assert released["job"]["images"][0]["reason"] is None


def test_hold_and_release_answer_409_in_another_state_and_404_for_nobody_s_job(
    client, submit, job_factory, monkeypatch
):
    monkeypatch.setattr(auth, "LOCAL", Principal("local", Role.USER))
    job = submit()
    theirs = job_factory(owner="eve")

    again = client.post(job["links"]["release"])

    assert again.status_code == 409
    assert again.get_json()["detail"] == f"Job {job['id']} cannot be released: it is queued."
    client.post(job["links"]["hold"])
    assert client.post(job["links"]["hold"]).status_code == 409
    for move in ("hold", "release"):
        assert client.post(f"/api/v1/jobs/{theirs.id}/{move}").status_code == 404
        assert client.post(f"/api/v1/jobs/4711/{move}").status_code == 404


def test_openapi_describes_the_scheduling(client):
    document = client.get("/openapi.json").get_json()

    described = document["components"]["schemas"]["NewJob"]["properties"]
    assert {name: described[name]["description"] for name in Scheduling.model_fields} == {
        name: parameter.description for name, parameter in parameters(Scheduling).items()
    }
    page = client.get("/reference").text
    assert all(f"<code>{name}</code>" in page for name in Scheduling.model_fields)
