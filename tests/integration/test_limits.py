"""Limits of an owner: what is too much is refused, with what is left, and no part of it is recorded."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from threading import Barrier
from urllib.parse import unquote

import pytest
from PIL import Image as Picture
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import OperationalError

from cli import limits as cli_limits
from shared.accounts import audit, limit_rows
from shared.accounts.limits import NO_LIMITS, OwnerLimits
from shared.accounts.principal import Principal, Role
from shared.admission import allowance
from shared.db.owner_locks import OwnerLock, lock_owner
from shared.db.sessions import transact
from shared.db.tables import Image, Job, ModelFile, OwnerLimit
from shared.errors import Refused
from tests.support.queueing import Farmhand
from tests.unit.test_decode import encoded

JOBS, LIMITS = "/api/v1/jobs", "/api/v1/limits"
JOB = {"prompt": "sea", "checkpoint": "demo", "width": 64, "height": 64, "steps": 2}


@pytest.fixture
def settings(settings):
    keys = {"anns-long-key": "ann", "roots-long-key": "root"}
    given = {"api_keys": keys, "admins": "root", "user_limits": "queued=10 running=3"}
    return settings.model_copy(update=given)


@pytest.fixture(autouse=True)
def _checkpoints(checkpoint_factory):
    for name in ("demo", "other", "third"):
        checkpoint_factory(name, native_size=64)


@pytest.fixture
def ask(app):
    """Submits a job of the owner `ann`, each time as a browser of its own, and returns the answer."""

    def asked(given=JOB, path=JOBS, **headers):
        return app.test_client().post(path, json=given, headers={"X-API-Key": "anns-long-key", **headers})

    return asked


@pytest.fixture
def set_limits(app):
    """Sets limits of `ann`, or clears them, as an admin."""

    def setting(given=None, owner="ann"):
        client, path = app.test_client(), f"{LIMITS}/owners/{owner}"
        ways = {"headers": {"X-API-Key": "roots-long-key"}}
        return client.delete(path, **ways) if given is None else client.patch(path, json=given, **ways)

    return setting


def recorded(sessions, what=Job):
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(what))


def fields(answer):
    return {one["field"]: (one["message"], one["accepted"]) for one in answer.get_json()["errors"]}


def test_of_fifty_submissions_at_once_as_many_are_accepted_as_there_is_room_for(ask, sessions):
    barrier = Barrier(50)

    def submit(number):
        barrier.wait(60)
        for _ in range(10):  # the database took too long on a busy machine: clients ask again, and make no second job
            status = ask(**{"Idempotency-Key": f"submission-{number}"}).status_code
            if status != HTTPStatus.SERVICE_UNAVAILABLE:
                break
            time.sleep(0.2)
        return status

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(submit, range(50)))

    assert sorted(answers) == [202] * 10 + [422] * 40
    assert recorded(sessions) == recorded(sessions, Image) == 10


def test_a_job_with_more_images_than_may_wait_is_refused_whole_with_what_is_left(ask, sessions):
    assert ask(JOB | {"count": 7}).status_code == 202
    answer = ask(JOB | {"count": 4})
    assert answer.status_code == 422
    assert fields(answer) == {
        "limits.queued": (
            "7 images of at most 10 wait, so there is no room for 4 images",
            "3 now, and more as images start",
        )
    }
    assert recorded(sessions, Image) == 7
    assert ask(JOB | {"count": 3}).status_code == 202


def test_images_that_run_wait_no_more(ask, sessions):
    ask(JOB | {"count": 10})
    worker = Farmhand(sessions).worker()
    assert ask().status_code == 422
    assert worker.claim()
    assert ask().status_code == 202


def test_a_request_that_comes_again_under_its_key_takes_no_room(ask):
    first = ask(JOB | {"count": 10}, **{"Idempotency-Key": "mine"})
    again = ask(JOB | {"count": 10}, **{"Idempotency-Key": "mine"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.get_json()["id"] == again.get_json()["id"]


def test_images_that_are_queued_again_need_room_too(ask):
    job = ask(JOB | {"count": 6}).get_json()["id"]
    assert ask(path=f"{JOBS}/{job}/cancel").status_code == 200
    assert ask(JOB | {"count": 7}).status_code == 202
    assert [*fields(ask(path=f"{JOBS}/{job}/retry"))] == ["limits.queued"]
    assert ask(path=f"{JOBS}/{job}/images/0/retry").status_code == 200


def test_an_admin_who_queues_images_of_an_owner_again_stays_within_the_owners_limits(ask, app):
    roots = {"X-API-Key": "roots-long-key"}
    job = ask(JOB | {"count": 6}).get_json()["id"]
    ask(path=f"{JOBS}/{job}/cancel")
    ask(JOB | {"count": 7})
    refused = app.test_client().post(f"{JOBS}/{job}/retry", headers=roots)
    assert fields(refused) == {
        "limits.queued": (
            "7 images of at most 10 wait, so there is no room for 6 images",
            "3 now, and more as images start",
        )
    }
    assert app.test_client().post(f"{JOBS}/{job}/images/0/retry", headers=roots).status_code == 200


def test_a_sweep_says_beforehand_that_it_is_too_much(ask, sessions):
    sweep = {"axes": [{"field": "steps", "values": "1-20(+1)"}]}
    preview = ask(JOB | {"sweep": sweep}, path="/api/v1/sweeps/preview").get_json()
    assert [one["field"] for one in preview["problems"]] == ["limits.queued"]
    assert [*fields(ask(JOB | {"sweep": sweep}))] == ["limits.queued"]
    assert recorded(sessions) == 0


def balances(app):
    told = app.test_client().get(LIMITS, headers={"X-API-Key": "anns-long-key"}).get_json()
    return {one["name"]: (one["limit"], one["used"], one["left"]) for one in told["limits"]}


def test_own_limits_are_told_with_what_is_used_and_left(ask, app, sessions):
    assert balances(app) == {"queued": (10, 0, 10), "running": (3, 0, 3)}
    ask(JOB | {"count": 4})
    Farmhand(sessions).worker().claim()
    assert balances(app) == {"queued": (10, 3, 7), "running": (3, 1, 2)}


def test_what_is_set_for_an_owner_wins_over_the_role_until_it_is_cleared(ask, app, set_limits):
    assert set_limits({"queued": 2}).get_json()["limits"] == {"queued": 2}
    assert set_limits({"running": "none"}).get_json()["limits"] == {"queued": 2, "running": None}
    assert balances(app) == {"queued": (2, 0, 2)}
    assert ask(JOB | {"count": 3}).status_code == 422
    assert set_limits({"queued": "role"}).get_json()["limits"] == {"running": None}
    assert ask(JOB | {"count": 3}).status_code == 202
    assert set_limits().get_json()["limits"] == {}
    assert balances(app) == {"queued": (10, 3, 7), "running": (3, 0, 3)}


def test_images_of_a_day_are_those_that_are_rendered_and_those_that_wait(ask, app, set_limits, sessions):
    set_limits({"daily_images": 4, "queued": None})
    hand = Farmhand(sessions)
    job = ask(JOB | {"count": 3}).get_json()["id"]
    hand.finish(hand.worker().claim())
    assert balances(app)["daily_images"] == (4, 3, 1)
    [(message, accepted)] = fields(ask(JOB | {"count": 2})).values()
    assert message == "3 of 4 images of today are rendered or wait, and this job has 2 images"
    assert re.fullmatch(r"1 today, and all of them again from .* 00:00.*UTC", accepted)
    ask(path=f"{JOBS}/{job}/cancel")
    assert balances(app)["daily_images"] == (4, 1, 3), "what is cancelled takes nothing of the day"
    app.test_client().delete(f"{JOBS}/{job}", headers={"X-API-Key": "anns-long-key"})
    assert balances(app)["daily_images"] == (4, 1, 3), "and what is deleted gives nothing back"


def test_work_of_a_day_is_steps_times_area_and_counted_when_it_is_submitted(ask, app, set_limits, sessions):
    set_limits({"daily_work": 10})
    mine = JOB | {"width": 1024, "height": 1024, "steps": 4, "cfg_scale": 1}  # 4.2 megapixel steps
    assert ask(mine).status_code == 202
    assert balances(app)["daily_work"] == (10, 5, 5)
    [message] = [message for message, _ in fields(ask(mine | {"count": 2})).values()]
    assert message == "5 of 10 megapixel steps of today are taken, and this job has 9"
    assert ask(mine).status_code == 202
    yesterday = text("UPDATE owner_limits SET work_day = work_day - 1")
    transact(sessions, lambda session: session.execute(yesterday))
    assert balances(app)["daily_work"] == (10, 0, 10)
    assert ask(mine).status_code == 202
    assert balances(app)["daily_work"] == (10, 5, 5)


def test_gpu_seconds_of_a_month_refuse_jobs_once_they_are_used(ask, app, set_limits, sessions):
    set_limits({"monthly_gpu_seconds": 100})
    used = text("""
        INSERT INTO usage_days (owner, day, checkpoint, images, gpu_seconds, bytes)
        SELECT 'ann', (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 day' * past)::date, 'c', 1, 99.5, 1
        FROM generate_series(0, 1) AS past
    """)
    assert ask().status_code == 202
    transact(sessions, lambda session: session.execute(used))
    assert balances(app)["monthly_gpu_seconds"] == (100, 100, 0), "the month before does not count"
    [(message, accepted)] = fields(ask()).values()
    assert message == "100 of 100 GPU seconds of this month are used"
    assert re.fullmatch(r"a job from \d{4}-\d\d-01 00:00.* on", accepted)


@pytest.mark.parametrize(
    ("limits", "given", "told"),
    [
        ({"checkpoints": ["other", "demo"]}, {"checkpoint": "third"}, {"checkpoint": "other or demo"}),
        ({"pools": "large"}, {"pool": "default"}, {"pool": "large"}),
        ({"urgent": "no"}, {"urgent": True}, {"urgent": "false, with a priority to order your own"}),
    ],
)
def test_what_an_owner_may_not_use_is_refused_by_its_field(ask, set_limits, limits, given, told):
    assert set_limits(limits).status_code == 200
    assert {field: accepted for field, (_, accepted) in fields(ask(JOB | given)).items()} == told


def test_an_owner_uses_what_is_allowed(ask, app, set_limits):
    set_limits({"checkpoints": ["other"], "pools": ["large"], "urgent": True})
    mine = {name: value for name, value in JOB.items() if name != "checkpoint"} | {"pool": "large", "urgent": True}
    job = ask(mine)
    assert job.status_code == 202
    assert job.get_json()["params"]["checkpoint"].startswith("other"), "the first of those that are allowed"
    form = app.test_client().get("/", headers={"X-API-Key": "anns-long-key"}).text
    assert ('value="other ' in form, 'value="third ' in form) == (True, False)


def test_checkpoints_are_offered_however_a_limit_names_them(app, set_limits, sessions, checkpoint_factory, monkeypatch):
    monkeypatch.setattr("api.use_cases.catalogue.OFFERED", 1)
    checkpoint_factory("twin", path="a/twin.safetensors", sha256="1" * 64)
    checkpoint_factory("twin", path="b/twin.safetensors", sha256="2" * 64)
    client, mine = app.test_client(), {"X-API-Key": "anns-long-key"}
    for named in ("b/twin", "2" * 10, "2" * 64):
        set_limits({"checkpoints": [named]})
        form, search, closed = (
            client.get(path, headers=mine).text
            for path in ("/", "/choices?field=checkpoint&search=twin", "/choices?field=checkpoint&search=demo")
        )
        shown = [["demo [" in page, "twin [111" in page, "twin [222" in page] for page in (form, search, closed)]
        assert shown == [[False, False, True], [False, False, True], [False] * 3], named
    [model] = client.get("/v1/models", headers=mine).get_json()["data"]
    assert model["id"] == "twin [2222222222]", "there is another twin, which is closed"
    assert client.get(f"/v1/models/{model['id']}", headers=mine).get_json() == model


def test_a_draft_is_approved_within_what_its_owner_may_use_by_then(ask, app, set_limits, sessions):
    set_limits({"urgent": True})
    sweep = {"axes": [{"field": "checkpoint", "values": "demo,other"}], "draft": {"steps": 1}}
    draft = ask(JOB | {"sweep": sweep, "urgent": True}).get_json()
    path, before = f"{JOBS}/{draft['id']}/approve", recorded(sessions)
    set_limits({"urgent": False, "checkpoints": ["other"], "pools": ["large"]})
    for answer in (ask(path=path), app.test_client().post(path, headers={"X-API-Key": "roots-long-key"})):
        assert {field: accepted for field, (_, accepted) in fields(answer).items()} == {
            "checkpoint": "other",
            "pool": "large",
            "urgent": "false, with a priority to order your own",
        }
    assert recorded(sessions) == before
    set_limits({"urgent": True, "checkpoints": "role", "pools": "role"})
    whole = ask(path=path)
    assert whole.status_code == 202
    set_limits({"checkpoints": ["other"]})
    assert ask(path=path).get_json()["id"] == whole.get_json()["id"], "it was approved before"


def test_images_are_queued_again_within_what_their_owner_may_use_by_then(ask, app, set_limits):
    set_limits({"urgent": True})
    sweep = {"axes": [{"field": "checkpoint", "values": "demo,other"}]}
    job = ask(JOB | {"sweep": sweep, "urgent": True}).get_json()["id"]
    ask(path=f"{JOBS}/{job}/cancel")
    set_limits({"urgent": False, "checkpoints": ["other"], "pools": ["large"]})
    whole, one = f"{JOBS}/{job}/retry", f"{JOBS}/{job}/images/1/retry"
    for answer in (ask(path=whole), app.test_client().post(whole, headers={"X-API-Key": "roots-long-key"})):
        assert {*fields(answer)} == {"checkpoint", "pool", "urgent"}
    assert {*fields(ask(path=one))} == {"pool", "urgent"}, "its checkpoint is allowed"
    set_limits({"urgent": True, "pools": "role"})
    assert (ask(path=one).status_code, ask(path=one).status_code) == (200, 409)
    assert {*fields(ask(path=whole))} == {"checkpoint"}


def test_images_whose_checkpoint_is_gone_wait_for_it_also_where_limits_name_checkpoints(ask, set_limits, sessions):
    set_limits({"checkpoints": ["demo"]})
    job = ask().get_json()["id"]
    ask(path=f"{JOBS}/{job}/cancel")
    replaced = update(ModelFile).where(ModelFile.name == "demo").values(sha256="f" * 64)
    transact(sessions, lambda session: session.execute(replaced))
    assert ask(path=f"{JOBS}/{job}/retry").status_code == 200


def test_an_admin_changes_a_job_within_its_owners_limits(ask, app, set_limits):
    set_limits({"pools": ["default"]})
    job, roots = ask(JOB | {"hold": True}).get_json()["id"], {"X-API-Key": "roots-long-key"}
    refused = app.test_client().patch(f"{JOBS}/{job}", json={"urgent": True, "pool": "large"}, headers=roots)
    assert {*fields(refused)} == {"urgent", "pool"}
    set_limits({"pools": "role", "urgent": True})
    changed = app.test_client().patch(f"{JOBS}/{job}", json={"urgent": True, "pool": "large"}, headers=roots)
    assert changed.status_code == 200


def test_jobs_that_name_no_checkpoint_and_no_pool_take_the_first_that_are_allowed(ask, set_limits, sessions):
    with sessions() as session:
        sha256 = session.scalar(select(ModelFile.sha256).where(ModelFile.name == "third"))
    bare = {name: value for name, value in JOB.items() if name != "checkpoint"}
    for first in ("third", "THIRD", "third.safetensors", sha256[:10]):
        set_limits({"checkpoints": [first, "demo"], "pools": ["large", "small"]})
        job = ask(bare).get_json()
        assert (job["params"]["checkpoint"].split()[0], job["pool"]) == ("third", "large"), first
    set_limits({"pools": ["large", "default"]})
    assert ask(bare).get_json()["pool"] == "default"


def test_what_is_set_is_told_from_what_only_reads_alike(sessions):
    root, names = Principal("root", Role.ADMIN), {"checkpoints": ["a,b"]}  # as versions before took them
    transact(sessions, lambda session: session.add(OwnerLimit(owner="ann", given=names)))
    wanted = {"checkpoints": ("a", "b"), "pools": None}
    row = transact(sessions, lambda session: limit_rows.change(session, "ann", wanted, root))
    assert row.given == {"checkpoints": ["a", "b"], "pools": None}
    transact(sessions, lambda session: limit_rows.change(session, "ann", wanted, root))
    assert len(transact(sessions, audit.listed)) == 1, "what is as before is not set again"


def test_source_pictures_find_the_room_that_is_the_owners_own(app, set_limits):
    set_limits({"upload_mb": 0})
    client, mine = app.test_client(), {"X-API-Key": "anns-long-key"}
    picture = encoded(Picture.new("RGB", (24, 16)), "PNG")
    refused = client.post("/api/v1/uploads", data=picture, content_type="application/octet-stream", headers=mine)
    assert (refused.status_code, [*fields(refused)]) == (422, ["file"])
    assert "you have 0 MB for source pictures" in refused.text
    set_limits({"upload_mb": 1})
    taken = client.post("/api/v1/uploads", data=picture, content_type="application/octet-stream", headers=mine)
    assert taken.status_code == 201
    assert balances(app)["upload_mb"] == (1, 1, 0)


def test_workers_learn_how_many_images_the_role_lets_run(ask, app, set_limits, sessions):
    ask(JOB | {"count": 5})
    worker = Farmhand(sessions).worker()
    assert [bool(worker.claim()) for _ in range(5)] == [True] * 3 + [False] * 2
    set_limits({"running": 4})
    assert [bool(worker.claim()) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("given", "field"),
    [({"queue": 1}, "queue"), ({"queued": -1}, "queued"), ({"queued": True}, "queued"), ({"queued": 1e9}, "queued"),
     ({"queued": "9" * 4000}, "queued"), ({"running": [1]}, "running"), ({"checkpoints": []}, "checkpoints"),
     ({"pools": ["x", 1]}, "pools"), ({"pools": ["\ud800"]}, "pools"),
     ({"checkpoints": ["a,b"]}, "checkpoints"), ({"pools": ["none"]}, "pools"),
     ({"checkpoints": ["a\0b"]}, "checkpoints"), ({"urgent": "perhaps"}, "urgent"), ([], "body")],
)  # fmt: skip
def test_limits_that_cannot_be_are_refused_by_their_name(set_limits, given, field):
    answer = set_limits(given)
    assert (answer.status_code, [*fields(answer)]) == (422, [field])
    assert set_limits(owner="x" * 61, given={"queued": 1}).status_code == 422


@pytest.mark.parametrize("owner", ["a%00b", "x" * 3000], ids=["NUL", "long"])
def test_limits_of_nobody_who_could_be_are_not_cleared(app, sessions, owner):
    client, roots = app.test_client(), {"X-API-Key": "roots-long-key"}
    assert client.delete(f"{LIMITS}/owners/{owner}", headers=roots).status_code == 422
    assert client.post("/limits/clear", data={"owner": unquote(owner)}, headers=roots).status_code == 422
    assert transact(sessions, audit.listed) == []


@pytest.mark.parametrize("other", [NO_LIMITS, OwnerLimits(daily_work=9)])
def test_two_roles_of_an_owner_at_once_take_their_locks_in_one_order(sessions, other):
    asked, told = allowance.Asked("ann", 1, 1), OwnerLimits(daily_work=9)
    transact(sessions, lambda session: allowance.check(session, asked, told))
    with sessions() as first, sessions() as second:
        lock_owner(first, OwnerLock.LIMITS, "ann")
        for session in (first, second):
            session.execute(text("SET LOCAL lock_timeout = '20ms'"))
        with pytest.raises(OperationalError):
            allowance.check(second, asked, replace(other, role_running=1, is_told=False))
        allowance.check(first, asked, told)  # the other one holds nothing yet that it needs


def test_only_an_admin_sets_limits(app):
    client, mine = app.test_client(), {"X-API-Key": "anns-long-key"}
    path = f"{LIMITS}/owners/ann"
    assert client.patch(path, json={"queued": None}, headers=mine).status_code == 403
    assert client.get(f"{LIMITS}/owners", headers=mine).status_code == 403


def test_limits_are_set_beside_the_database_as_over_http(settings, app, sessions, capsys):
    cli_limits.change(settings, "ann", ["queued=7", "running=none"], as_json=False)
    assert capsys.readouterr().out == "ann: queued=7 running=none\n"
    cli_limits.show(settings, everybodys=False, as_json=True)
    [row] = json.loads(capsys.readouterr().out)["owners"]
    assert (row["limits"], row["set_by"]) == ({"queued": 7, "running": None}, "farm limits")
    cli_limits.clear(settings, "ann", as_json=False)
    lines = transact(sessions, audit.listed)
    assert [(one.owner, one.action, one.whose, one.detail) for one in lines] == [
        ("farm limits", "limits.cleared", "ann", ""),
        ("farm limits", "limits.set", "ann", "queued=7 running=none"),
    ]
    with pytest.raises(Refused, match="queue "):
        cli_limits.change(settings, "ann", ["queue "], as_json=False)


def test_the_page_shows_what_is_left_and_lets_an_admin_set_limits(app, ask, set_limits):
    ask(JOB | {"count": 4})
    mine, roots = {"X-API-Key": "anns-long-key"}, {"X-API-Key": "roots-long-key"}
    own = app.test_client().get("/limits", headers=mine).text
    assert "4 of 10 used" in own
    assert 'action="/limits"' not in own

    admin = app.test_client()
    form = {"owner": "ann", "queued": "7", "running": "none", "checkpoints": "demo, other"}
    assert admin.post("/limits", data=form, headers=roots).status_code == 303
    shown = admin.get("/limits?owner=ann", headers=roots).text
    assert 'name="queued" aria-describedby="queued-hint" maxlength="20000" autocomplete="off" value="7"' in shown
    assert "demo,other" in shown
    assert "4 of 7 used" in app.test_client().get("/limits", headers=mine).text
    wrong = admin.post("/limits", data=form | {"queued": "many"}, headers=roots)
    assert (wrong.status_code, "is not what it may be" in wrong.text, "many" in wrong.text) == (422, True, True)
    assert app.test_client().post("/limits", data=form, headers=mine).status_code == 403
    assert admin.post("/limits/clear", data={"owner": "ann"}, headers=roots).status_code == 303
    assert "4 of 10 used" in app.test_client().get("/limits", headers=mine).text
