"""What a farm's own limits change: what refusals name, how many open jobs an owner may have, what a prompt may cost."""

from __future__ import annotations

import pytest

from shared.accounts.scope import EVERYBODYS
from shared.admission import prompts
from shared.db.sessions import transact
from shared.queue import transitions
from tests.support.browsing import look, page, send


@pytest.fixture
def settings(settings):
    return settings.model_copy(
        update={
            "min_size": 128,
            "max_size": 640,
            "max_steps": 7,
            "max_cfg_scale": 3.0,
            "max_count": 2,
            "max_prompt_chars": 40,
            "max_open_jobs_per_owner": 2,
            "max_body_bytes": 4096,
        }
    )


@pytest.fixture(autouse=True)
def _checkpoint(checkpoint_factory):
    checkpoint_factory("demo", native_size=128)


JOB = {"prompt": "sea", "steps": 4, "cfg_scale": 2}
WRONG = {
    "width": (4096, "128 to 640"),
    "height": (64, "128 to 640"),
    "steps": (99, "a whole number from 1 to 7"),
    "cfg_scale": (9.0, "a number from 0 to 3"),
    "count": (500, "a whole number from 1 to 2"),
    "prompt": ("long " * 20, "at most 40 characters"),
}
MISTYPED = {
    "width": ("wide", "128 to 640"),
    "steps": ("many", "a whole number from 1 to 7"),
    "cfg_scale": ("much", "a number from 0 to 3"),
    "count": ([], "a whole number from 1 to 2"),
    "prompt": (7, "at most 40 characters"),
    "noise": ({"resize_width": "x"}, "128 to 640"),
    "hires": ({"steps": "x"}, "a whole number from 0 to 7"),
}


@pytest.mark.parametrize("given", [WRONG, MISTYPED], ids=["out of bounds", "of a wrong kind"])
@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/tokens"])
def test_refusals_name_the_farm_s_limits(client, path, given):
    asked = {name: value for name, (value, _) in given.items()}
    answer = client.post(path, json=asked)
    assert answer.status_code == 422
    told = {error["field"]: error["accepted"] for error in answer.get_json()["errors"]}
    for name, (_, accepted) in given.items():
        found = [said for field, said in told.items() if field.split(".")[0] == name]
        assert all(accepted in said for said in found)
    assert len(told) == len(given) or (path.endswith("tokens") and given is WRONG)


def test_the_form_and_the_reference_name_the_farm_s_limits(client):
    form = page(send(client, "/jobs", prompt="sea", steps="99", width="4096"))
    assert "99 is too large" in form.text
    reference = look(client, "/reference").text
    for accepted in ("128 to 640 in steps of 8", "a whole number from 1 to 7", "text of at most 40 characters"):
        assert accepted in reference


def test_an_owner_has_so_many_open_jobs_and_no_more(client, sessions):
    first, second = (client.post("/api/v1/jobs", json=JOB).get_json() for _ in range(2))
    refused = client.post("/api/v1/jobs", json=JOB | {"steps": 99})
    assert refused.status_code == 422
    told = {error["field"]: error for error in refused.get_json()["errors"]}
    assert told.keys() == {"job", "steps"}
    assert told["job"]["message"] == "you have 2 jobs that have not ended, as many as one owner may have here"
    assert "cancel some" in told["job"]["accepted"]
    assert "FARM_MAX_OPEN_JOBS_PER_OWNER" in told["job"]["accepted"]
    assert (
        "you have 2 jobs that have not ended"
        in page(send(client, "/jobs", prompt="sea", steps="4", cfg_scale="2")).text
    )

    transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, first["id"]))
    third = client.post("/api/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"})
    assert third.status_code == 202
    again = client.post("/api/v1/jobs", json=JOB, headers={"Idempotency-Key": "k"})
    assert again.get_json()["id"] == third.get_json()["id"], "what comes again is not refused"

    retried = client.post(f"/api/v1/jobs/{first['id']}/retry")
    assert retried.status_code == 409
    assert "you have 2 jobs that have not ended" in retried.get_json()["detail"]
    transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, second["id"]))
    assert client.post(f"/api/v1/jobs/{first['id']}/retry").status_code == 200


def test_other_owners_jobs_do_not_count(client, job_factory):
    for _ in range(3):
        job_factory(owner="bob")
    assert client.post("/api/v1/jobs", json=JOB).status_code == 202


def test_prompts_are_measured_before_a_transaction_is_opened(client, services, monkeypatch):
    """However long it takes, it holds no connection, and is never told as the database's slowness."""
    held = []
    measured = prompts.unreadable

    def slow(params, limits):
        held.append(services.engine.pool.checkedout())
        return measured(params, limits)

    monkeypatch.setattr(prompts, "unreadable", slow)
    job = client.post("/api/v1/jobs", json=JOB | {"prompt": "a [cat|dog]"})
    assert job.status_code == 202
    from_file = client.post("/api/v1/png-info", data=b"no picture")
    assert from_file.status_code == 422
    assert held == [0]


def test_a_body_that_is_too_large_is_told_the_farm_s_limit(client):
    answer = client.post("/api/v1/tokens", json={"prompt": "x" * 5000})
    assert answer.status_code == 413
    assert "larger than the 4,096 bytes" in answer.get_json()["detail"]
