"""A class: keys and limits from a list, and at the end nothing of the learners any more."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from api.services import EXTENSION
from cli import keys as cli_keys
from cli import owner_lists, wipe
from shared.accounts import audit
from shared.accounts.principal import LOCAL
from shared.db.sessions import transact
from shared.db.tables import ApiKey, Base, Image, Job
from shared.errors import Refused
from shared.maintenance import wiping
from tests.support.queueing import Farmhand

USUAL = {"name": "class", "owner": None, "role": None, "days": 90}
JOB = {"prompt": "sea", "checkpoint": "demo", "width": 64, "height": 64, "steps": 2, "count": 2}


@pytest.fixture
def listed(tmp_path):
    """Writes a list of owners and returns its file."""

    def written(text):
        file = tmp_path / "class.csv"
        file.write_text(text)
        return file

    return written


@pytest.fixture
def teacher(settings, app, capsys, checkpoint_factory):
    """The headers of an admin, with whose key the farm begins to ask for keys."""
    checkpoint_factory("demo", native_size=64)
    cli_keys.create(settings, {"name": "laptop", "owner": "teacher", "role": "admin"}, as_json=True)
    made = json.loads(capsys.readouterr().out)
    app.extensions[EXTENSION].keyring.forget()
    return {"X-API-Key": made["key"]}


def test_each_learner_of_a_list_gets_a_key_and_limits(settings, app, teacher, listed, capsys):
    file = listed("\ufeffName,Owner,Days\nlaptop,ann,30\n,bob,\n")
    owner_lists.create(settings, file, USUAL, ["queued=2", "running=1"], as_json=False)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["owner"] for row in rows] == ["ann", "bob"]
    client = app.test_client()
    for row in rows:
        told = client.get("/api/v1/limits", headers={"X-API-Key": row["key"]}).get_json()
        assert {one["name"]: one["limit"] for one in told["limits"]} == {"queued": 2, "running": 1}
    shown = client.get("/api/v1/keys?all=true", headers=teacher).get_json()["keys"]
    assert {(one["owner"], one["name"], one["role"], one["expires_at"] is None) for one in shown} == {
        ("teacher", "laptop", "admin", True),
        ("ann", "laptop", "user", False),
        ("bob", "class", "user", False),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        ("", "file"),
        ("owner\nann\nann\n", "line 3"),
        ("owner,name\n,laptop\n", "line 2"),
        ("owner,role\nann,king\n", "role"),
        ("ann\nbo:b\n", "owner"),
    ],
)
@pytest.mark.usefixtures("teacher")
def test_a_list_with_something_wrong_makes_nothing(settings, listed, sessions, wrong):
    given, field = wrong
    with pytest.raises(Refused) as refused:
        owner_lists.create(settings, listed(given), USUAL, [], as_json=False)
    assert [one.field for one in refused.value.fields] == [field]
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 1


@pytest.fixture
def keys(settings, teacher, listed, capsys):
    """A key of each of two learners."""
    del teacher  # the first key
    owner_lists.create(settings, listed("ann\nbob\n"), USUAL, ["queued=9"], as_json=False)
    return {row["owner"]: row["key"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}


def test_everything_of_a_learner_is_wiped_and_nothing_of_others(app, teacher, keys, sessions):
    client, jobs = app.test_client(use_cookies=False), {}
    for owner, key in keys.items():
        mine = {"X-API-Key": key}
        jobs[owner] = client.post("/api/v1/jobs", json=JOB, headers=mine).get_json()["id"]
        assert client.put("/api/v1/presets/mine", json={"steps": 3}, headers=mine).status_code == 201
        assert client.post("/api/v1/webhooks", json={"url": "https://example.org/x"}, headers=mine).status_code == 201
    hand = Farmhand(sessions)
    worker = hand.worker()
    worker.claim()
    hand.finish(worker.claim())
    storage = app.extensions[EXTENSION].storage
    storage.put(f"jobs/{jobs['ann']}/0-1.png", b"x")

    wiped = client.delete("/api/v1/owners/ann", headers=teacher)

    assert wiped.get_json() == {"owner": "ann", "keys": 1, "jobs": 1, "left": 1}, "another process may let ann in"
    earlier = text("UPDATE api_keys SET revoked_at = revoked_at - interval '1 second' WHERE owner = 'ann'")
    transact(sessions, lambda session: session.execute(earlier))
    wiped = client.delete("/api/v1/owners/ann", headers=teacher)
    assert wiped.get_json() == {"owner": "ann", "keys": 0, "jobs": 0, "left": 0}
    assert client.get("/api/v1/jobs", headers={"X-API-Key": keys["ann"]}).status_code == 401
    assert client.get(f"/api/v1/jobs/{jobs['bob']}", headers={"X-API-Key": keys["bob"]}).status_code == 200
    with sessions() as session:
        kept = {
            table.name: session.scalar(text(f"SELECT count(*) FROM {table.name} WHERE owner = 'ann'"))
            for table in Base.metadata.sorted_tables
            if "owner" in table.columns and table.name not in {"api_keys", "outbox", "audit_log"}
        }
        assert {name: rows for name, rows in kept.items() if rows} == {}
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert session.scalar(select(func.count()).select_from(Image)) == 2
        [line] = audit.listed(session, "ann", "owner.wiped")
    assert (line.owner, line.action, line.whose, line.detail) == ("teacher", "owner.wiped", "ann", "1 key, 1 job")
    assert client.delete("/api/v1/owners/teacher", headers=teacher).status_code == 422
    assert client.delete("/api/v1/owners/bob", headers={"X-API-Key": keys["bob"]}).status_code == 403


def test_learners_are_wiped_beside_the_database(app, keys, settings, capsys, monkeypatch):
    monkeypatch.setattr("shared.maintenance.wiping.KNOWN", timedelta(0))
    assert app.test_client().post("/api/v1/jobs", json=JOB, headers={"X-API-Key": keys["bob"]}).status_code == 202
    wipe.wipe(settings, ["ann", "bob"], is_sure=True, as_json=True)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["owners"]
    assert [(one["owner"], one["keys"], one["jobs"]) for one in told] == [("ann", 1, 0), ("bob", 1, 1)]
    lines = transact(app.extensions[EXTENSION].sessions, lambda session: audit.listed(session, action="owner.wiped"))
    assert [(one.owner, one.whose) for one in lines] == [("farm wipe", "bob"), ("farm wipe", "ann")]


def test_all_learners_lose_their_keys_before_the_second_round(monkeypatch):
    left, asked = {"ann": [4, 1, 0], "bob": [1, 0]}, []
    monkeypatch.setattr("cli.wipe.time.sleep", asked.append)

    def wipe_some(name):
        asked.append(name)
        return {"owner": name, "keys": 1, "jobs": 0, "left": left[name].pop(0)}

    assert [one["keys"] for one in wipe._whole(wipe_some, ["ann", "bob"])] == [3, 2]
    assert [one for one in asked if isinstance(one, str)] == ["ann", "bob", "ann", "bob", "ann"]
    assert len(asked) == 7, "it waits where nothing could be deleted"


def test_a_call_begins_with_no_further_job_after_its_time(app, sessions, job_factory):
    for _ in range(3):
        job_factory(owner="ann")
    times = iter([0.0, 0.0, 9.0, 11.0])
    wiped = wiping.wipe(sessions, app.extensions[EXTENSION].storage, LOCAL, "ann", lambda: next(times))
    assert (wiped.jobs, wiped.left) == (2, 1)


def test_more_jobs_than_one_request_wipes_are_left_for_the_next(app, teacher, sessions, monkeypatch, job_factory):
    monkeypatch.setattr("shared.maintenance.wiping.BATCH", 2)
    for _ in range(3):
        job_factory(owner="ann")
    client = app.test_client()
    told = [client.delete("/api/v1/owners/ann", headers=teacher).get_json() for _ in range(2)]
    assert [(one["jobs"], one["left"]) for one in told] == [(2, 1), (1, 0)]
    assert transact(sessions, lambda session: session.scalar(select(func.count()).select_from(Job))) == 0
