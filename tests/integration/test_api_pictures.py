"""The gallery over HTTP."""

from __future__ import annotations

import io
import json
import zipfile
from functools import partial
from pathlib import Path

import httpx
import pytest

from cli.pictures import show
from client.client import Client
from shared.db.sessions import transact
from shared.media.storage import key
from shared.params.render import RenderParams
from shared.queue.submit import submit
from tests.support.admissions import admission
from tests.support.galleries import finished

PICTURES = "/api/v1/pictures"


@pytest.fixture(scope="module")
def app(standing_app):
    return standing_app


@pytest.fixture
def make(services):
    """Submits and finishes a job of the local owner, and stores its pictures."""

    def make_job(owner="local", **params):
        given = {"prompt": "a boat", "checkpoint": "demo [0123456789]", "seed": 7, "width": 64, "height": 64}
        admitted = admission(owner, RenderParams(**(given | params)))
        job = transact(services.sessions, lambda session: submit(session, admitted).job)
        for index in range(job.count):
            for kind in ("picture", "thumbnail"):
                services.storage.put(key(job.id, index, 1, kind), f"{kind} {index}".encode())
        return job

    return partial(finished, services.sessions, make_job)


def ids(answer):
    assert answer.status_code == 200, answer.get_json()
    return [picture["id"] for picture in answer.get_json()["pictures"]]


def test_pages_filters_and_one_picture(client, make):
    job = make(prompt="a kite over dunes", count=3, sampler="Heun")
    make(prompt="a kite", owner="bob")
    first = client.get(PICTURES, query_string={"words": "kites", "limit": 2})
    assert ids(first) == [f"{job.id}.2", f"{job.id}.1"]
    cursor = first.get_json()["next"]
    assert ids(client.get(PICTURES, query_string={"words": "kites", "cursor": cursor})) == [f"{job.id}.0"]
    filters = {"checkpoint": "demo", "sampler": "Heun", "size": "64x64", "job": job.id, "seed": 8, "from": "2020-01-01"}
    [picture] = client.get(PICTURES, query_string=filters).get_json()["pictures"]
    assert (picture["id"], picture["params"]["seed"], picture["favourite"]) == (f"{job.id}.1", 8, False)
    assert client.get(picture["links"]["picture"]).data == b"picture 1"
    assert client.get(picture["links"]["self"]).get_json() == picture
    assert client.get(f"{PICTURES}/{job.id}/3").status_code == 404
    assert "Heun" in client.get(f"{PICTURES}/facets").get_json()["samplers"]
    assert ids(client.get(PICTURES, query_string={"words": "kites", "until": "2020-01-01"})) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cursor", "x"), ("cursor", "1-"), ("cursor", "1-1-x"), ("size", "64"), ("seed", "-1"),
        ("from", "yesterday"), ("limit", "0"), ("order", "random"), ("words", "x" * 401),
        ("job", str(2**63)), ("colour", "red"), ("tag", ""), ("sampler", "a\0b"), ("adapter", "a\0b"),
        ("checkpoint", "a\0b"),
    ],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused_by_name(client, field, value):
    answer = client.get(PICTURES, query_string={field: value})
    assert answer.status_code == 422
    [problem] = answer.get_json()["errors"]
    assert problem["field"].startswith(field)
    assert problem["accepted"]


def test_a_number_is_no_moment_of_a_filter(client):
    answer = client.post(f"{PICTURES}/zip", json={"filter": {"from": 0}})
    assert (answer.status_code, "from" in answer.get_json()["errors"][0]["field"]) == (422, True)


def test_pages_in_an_order_lead_on_and_no_cursor_of_another_is_taken(client, make):
    jobs = [
        make(prompt="in order", seed=seed, checkpoint=f"{name}, {name}-1 [0123456789]")
        for seed, name in ((9, "é"), (8, "b"))
    ]
    for order, wanted in (("seed", jobs[::-1]), ("checkpoint", jobs[::-1]), ("smallest", jobs)):
        asked = {"words": "order", "order": order, "limit": 1}
        first = client.get(PICTURES, query_string=asked)
        cursor = first.get_json()["next"]
        second = client.get(PICTURES, query_string=asked | {"cursor": cursor})
        assert [*ids(first), *ids(second)] == [f"{job.id}.0" for job in wanted]
        refused = client.get(PICTURES, query_string={"order": "oldest", "cursor": cursor})
        assert [one["field"] for one in refused.get_json()["errors"]] == ["cursor"]


def test_marks(client, make):
    job = make(prompt="marks")
    here = f"{PICTURES}/{job.id}/0"
    marked = client.patch(here, json={"favourite": True, "tags": ["sky ", "好"]}).get_json()
    assert (marked["favourite"], marked["tags"]) == (True, ["sky", "好"])
    assert client.patch(here, json={"favourite": False}).get_json()["tags"] == ["sky", "好"]
    assert ids(client.get(PICTURES, query_string={"tag": ["sky", "好"]})) == [f"{job.id}.0"]
    for bad in (
        {"favourite": "maybe"},
        {"favourite": 0},
        {"tags": [" "]},
        {"tags": [f"t{n}" for n in range(21)]},
        {"colour": 1},
    ):
        assert client.patch(here, json=bad).status_code == 422
    assert client.patch(f"{PICTURES}/{job.id}/9", json={"favourite": True}).status_code == 404


def test_a_deleted_picture_is_nowhere_and_its_job_keeps_its_record(client, make):
    job = make(prompt="deleted", count=2)
    one = f"{job.id}.0"
    done = client.post(f"{PICTURES}/actions", json={"action": "delete", "ids": [one]}).get_json()
    assert (done["pictures"], done["is_all"]) == (1, True)
    assert ids(client.get(PICTURES, query_string={"job": job.id})) == [f"{job.id}.1"]
    body = client.get(f"/api/v1/jobs/{job.id}").get_json()
    [gone, there] = body["images"]
    assert (body["counts"]["succeeded"], gone["state"], there["deleted_at"]) == (2, "succeeded", None)
    assert gone["deleted_at"]
    assert gone["links"]["picture"] is None
    assert client.get(there["links"]["picture"].replace("images/1", "images/0")).status_code == 404
    with zipfile.ZipFile(io.BytesIO(client.get(f"/api/v1/jobs/{job.id}/zip").data)) as archive:
        assert archive.namelist() == [f"{job.id}-0001.png"]
    assert client.get(f"{PICTURES}/{job.id}/0").get_json()["is_restorable"]

    back = client.post(f"{PICTURES}/actions", json={"action": "restore", "undo": done["undo"]}).get_json()
    assert (back["pictures"], back["undo"]) == (1, None)
    assert len(ids(client.get(PICTURES, query_string={"job": job.id}))) == 2


def test_actions_on_all_that_a_filter_finds(client, make):
    job = make(prompt="many wheels", count=3)
    for action in ("favourite", "tag"):
        body = {"action": action, "filter": {"words": "wheel"}} | ({"tag": "spokes"} if action == "tag" else {})
        assert client.post(f"{PICTURES}/actions", json=body).get_json()["pictures"] == 3
    assert len(ids(client.get(PICTURES, query_string={"favourites": "true", "tag": "spokes"}))) == 3
    answer = client.post(f"{PICTURES}/zip", json={"ids": [f"{job.id}.1", f"{job.id}.9"]})
    with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {f"{job.id}-0001.png": b"picture 1"}
    answer = client.post(f"{PICTURES}/zip", json={"filter": {"words": "wheel"}})
    assert len(zipfile.ZipFile(io.BytesIO(answer.data)).namelist()) == 3
    assert client.post(f"{PICTURES}/zip", json={"filter": {"words": "nothing like it"}}).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "delete"},
        {"action": "burn", "ids": ["1.0"]},
        {"action": "delete", "ids": []},
        {"action": "delete", "ids": ["1"]},
        {"action": "delete", "ids": ["1.0"] * 1001},
        {"action": "delete", "ids": ["1.0"], "filter": {}},
        {"action": "delete", "filter": {"colour": "red"}},
        {"action": "delete", "ids": ["1.0"], "tag": "x"},
        {"action": "tag", "ids": ["1.0"]},
        {"action": "restore", "filter": {}},
        {"action": "delete", "undo": "2026-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_actions_that_make_no_sense_are_refused_and_do_nothing(client, body):
    answer = client.post(f"{PICTURES}/actions", json=body)
    assert answer.status_code == 422
    assert all(error["accepted"] for error in answer.get_json()["errors"])


def test_the_command_line_lists_and_saves(app, make, tmp_path, capsys):
    job = make(prompt="a lighthouse in fog", count=2)
    with Client("http://localhost", transport=httpx.WSGITransport(app)) as farm:
        farm.mark(f"{job.id}.1", favourite=True, tags=["[night]"])
        show(farm, {"words": "lighthouse"}, 20, None, as_json=False)
        listed = capsys.readouterr().out
        show(farm, {"words": "lighthouse", "favourites": True}, 20, tmp_path / "kept", as_json=True)
        answer = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert farm.act_on_pictures("delete", ids=[f"{job.id}.0"])["pictures"] == 1
        assert [one["id"] for one in farm.pictures(limit=1, words="lighthouse")] == [f"{job.id}.1"]
        assert farm.zip_of_pictures(ids=[f"{job.id}.1"]).startswith(b"PK")
    assert f"{job.id}.0" in listed
    assert "favourite, [night]" in listed
    assert [Path(file).read_bytes() for file in answer["files"]] == [b"picture 1"]
