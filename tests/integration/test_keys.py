"""Keys in SQL: made once, kept as digests, revoked everywhere within a second."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from api.http import sse
from api.services import EXTENSION
from shared.accounts import keyring, keys
from shared.accounts.principal import LOCAL, Principal, Role
from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import ApiKey, BrowserSession, Job
from shared.errors import Refused, Unavailable
from shared.messaging.events import JobEnded, Progress

KEYS = "/api/v1/keys"


@pytest.fixture
def clock(monkeypatch):
    """The time by which processes know keys; `clock.pass_second()` makes what they know too old."""

    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

        def pass_second(self) -> None:
            self.now += 1.0

    return Clock()


@pytest.fixture
def client(app: Flask, clock):
    app.extensions[EXTENSION].keyring._clock = clock
    return app.test_client()


@pytest.fixture
def make(sessions):
    """Makes a key beside the database and returns its headers."""

    def made(owner="ann", role=Role.USER, by=LOCAL, **options):
        wanted = keys.NewKey(owner, role, "of a test", **options)
        made = transact(sessions, lambda session: keys.create(session, wanted, by, others=True))
        return {"Authorization": f"Bearer {made.key}"}, made.view.id

    return made


@pytest.mark.parametrize(
    ("owner", "role"),
    [("ann", Role.USER), ("oz", Role.OPERATOR), ("pat", Role.OPERATOR), ("local", Role.USER), ("nobody", Role.USER)],
)
def test_who_does_not_ask_has_the_highest_role_of_keys_and_sessions(app, make, sessions, owner, role):
    for name, given in (("ann", Role.USER), ("oz", Role.OPERATOR), ("oz", Role.VIEWER)):
        make(name, given)
    begun = {("pat", Role.OPERATOR), ("pat", ""), ("ann", None)}
    rows = [BrowserSession(digest=f"{one}", owner=one[0], key_mark="m", role=one[1]) for one in begun]
    ring = app.extensions[EXTENSION].keyring
    ring.refresh()

    def asked(session):
        session.add_all(rows)
        session.flush()
        return ring.person(session, owner).role

    assert transact(sessions, asked) == role


def test_the_first_key_is_an_admins_and_closes_the_farm(client, clock):
    refused = client.post(KEYS, json={"name": "laptop"})
    assert (refused.status_code, [one["field"] for one in refused.get_json()["errors"]]) == (422, ["role"])
    assert client.get("/api/v1/jobs").status_code == 200

    made = client.post(KEYS, json={"name": "laptop", "role": "admin", "owner": "ann"})
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    clock.pass_second()
    assert client.get("/api/v1/jobs").status_code == 401
    mine = {"X-API-Key": made.get_json()["key"]}
    [listed] = client.get(KEYS, headers=mine).get_json()["keys"]
    assert (listed["owner"], listed["role"], listed["created_by"], listed["opens"]) == ("ann", "admin", "local", True)
    assert client.delete(f"{KEYS}/{listed['id']}", headers=mine).get_json()["opens"] is False
    clock.pass_second()
    assert client.get("/api/v1/jobs").status_code == 401, "a farm that has asked for keys stays closed"


def test_a_key_is_random_and_only_its_digest_is_kept(client, sessions):
    made = [client.post(KEYS, json={"name": "n", "role": "admin"}, headers={}).get_json()["key"]]
    made.append(client.post(KEYS, json={"name": "n"}, headers={"Authorization": f"Bearer {made[0]}"}).get_json()["key"])
    with sessions() as session:
        rows = session.scalars(select(ApiKey)).all()
    assert len({*made}) == 2
    assert all(key.startswith("sf_") and len(key) == 46 for key in made)
    assert {row.digest for row in rows} == {keys.digest(key) for key in made}
    assert not any(key in str(vars(row)) for row in rows for key in made)


def test_a_new_key_opens_the_farm_at_once_and_a_revoked_one_no_second_longer(client, clock, make):
    first, _ = make(role=Role.ADMIN)
    assert client.get("/api/v1/jobs", headers=first).status_code == 200
    second, number = make("bob")
    assert client.get("/api/v1/jobs", headers=second).status_code == 200, "without waiting for what is known to be old"
    assert client.delete(f"{KEYS}/{number}", headers=first).status_code == 200
    clock.pass_second()
    assert client.get("/api/v1/jobs", headers=second).status_code == 401
    assert client.get("/api/v1/jobs", headers=first).status_code == 200


def test_requests_ask_sql_for_keys_once_a_second(client, clock, make, monkeypatch):
    headers, _ = make()
    asked = []
    standing = keys.standing
    monkeypatch.setattr(keys, "standing", lambda session: asked.append(1) or standing(session))
    for _ in range(5):
        client.get("/api/v1/samplers", headers=headers)
    assert len(asked) == 1
    clock.pass_second()
    client.get("/api/v1/samplers", headers=headers)
    assert len(asked) == 2


def test_an_expired_key_opens_nothing(client, clock, make, sessions):
    headers, number = make(days=1)
    assert client.get("/api/v1/jobs", headers=headers).status_code == 200
    ended = update(ApiKey).where(ApiKey.id == number).values(expires_at=func.now() - timedelta(seconds=1))
    transact(sessions, lambda session: session.execute(ended))
    clock.pass_second()
    assert client.get("/api/v1/jobs", headers=headers).status_code == 401


def test_a_browser_is_signed_out_with_its_key(client, clock, make, sessions):
    headers, number = make()
    with client.session_transaction() as cookie:
        cookie["csrf"] = "token"
    signed = client.post("/sign-in", data={"key": headers["Authorization"][7:], "csrf_token": "token"})
    assert signed.status_code == 303
    assert client.get("/jobs").status_code == 200
    transact(sessions, lambda session: keys.revoke(session, LOCAL, number))
    clock.pass_second()
    assert client.get("/jobs").headers["Location"].startswith("/sign-in")


def test_all_that_goes_on_ends_with_the_key(app, make, sessions, job_factory, checkpoint_factory):
    checkpoint_factory()
    client, (headers, number) = app.test_client(), make()
    job = job_factory(owner="ann").id
    waiting = {"prompt": "a lake", "pool": "nobody-renders-here", "stream": True}
    streams = [
        client.get(f"/api/v1/jobs/{job}/events", headers=headers, buffered=False),
        client.get("/api/v1/events", headers=headers, buffered=False),
        client.get(f"/replicate/v1/predictions/{job}/stream", headers=headers, buffered=False),
        client.post("/v1/images/generations", json=waiting, headers=headers, buffered=False),
    ]
    submitted = int(streams[-1].headers["Location"].rpartition("/")[2])
    parts = [iter(one.response) for one in streams]
    assert all(next(part) for part in parts)
    began = time.monotonic()
    transact(sessions, lambda session: keys.revoke(session, LOCAL, number))
    *_, of_replicate, of_openai = [b"".join(part) for part in parts]
    assert time.monotonic() - began < 30, "streams of this farm last a minute and more"
    assert b"The key was revoked" in of_replicate
    assert b"invalid_api_key" in of_openai
    for one in streams:
        one.close()
    with sessions() as session:
        assert session.get(Job, submitted).state == "cancelled"
        assert session.get(Job, job).state == "open"


def test_what_a_browser_follows_ends_when_it_signs_out_and_another_is_not_touched(
    app, make, sessions, job_factory, monkeypatch
):
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 3600)  # nothing comes but events
    (headers, _), job = make(), job_factory(owner="ann").id
    key, streams = headers["Authorization"][7:], []
    browsers = [app.test_client() for _ in range(2)]
    for browser in browsers:
        with browser.session_transaction() as cookie:
            cookie["csrf"] = "token"
        browser.post("/sign-in", data={"key": key, "csrf_token": "token"})
        streams += [browser.get(path, buffered=False) for path in (f"/api/v1/jobs/{job}/events", "/api/v1/events")]
    parts = [iter(one.response) for one in streams]
    assert all(next(part) for part in parts)
    with browsers[0].session_transaction() as cookie:
        cookie["csrf"] = "token"
    began = time.monotonic()
    assert browsers[0].post("/sign-out", data={"csrf_token": "token"}).status_code == 303
    assert [b"".join(part) for part in parts[:2]] == [b"", b""]
    assert time.monotonic() - began < 30, "streams of this farm last a minute and more"
    events = app.extensions[EXTENSION].events
    events.publish(Progress(job, 0, 1, step=1, steps=2, phase="rendering"))
    events.publish(JobEnded(1, job, "ann", "failed"))
    assert events.flush()
    assert [next(part).partition(b"\n")[0] for part in parts[2:]] == [b"event: progress", b"event: ended"]
    with sessions() as session:
        [other] = session.scalars(select(BrowserSession.digest))
    assert app.extensions[EXTENSION].still_knows(Principal("ann", Role.USER, session=other))
    for one in streams:
        one.close()


def test_a_use_is_written_down_now_and_then(client, clock, make, sessions, monkeypatch):
    headers, number = make()
    noted = []
    note = keys.note_use
    monkeypatch.setattr(keys, "note_use", lambda session, key_id: noted.append(key_id) or note(session, key_id))
    for _ in range(5):
        client.get("/api/v1/samplers", headers=headers)
        clock.pass_second()
    assert noted == [number]
    [view] = transact(sessions, lambda session: keys.listed(session, EVERYBODYS))
    assert datetime.now(UTC) - view.used_at < timedelta(minutes=1)


def test_keys_stay_as_they_were_while_the_database_is_away(client, clock, make, monkeypatch):
    headers, _ = make()
    assert client.get("/api/v1/samplers", headers=headers).status_code == 200

    def away(*_):
        raise Unavailable("away")

    monkeypatch.setattr(keyring, "transact", away)
    clock.pass_second()
    assert client.get("/api/v1/samplers", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "name"),
        ({"name": "x" * 61}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "n", "owner": "ann,bob"}, "owner"),
        ({"name": "n", "owner": 7}, "owner"),
        ({"name": "n", "role": "root"}, "role"),
        ({"name": "n", "role": ["admin"]}, "role"),
        ({"name": "n", "days": 0}, "days"),
        ({"name": "n", "days": True}, "days"),
        ({"name": "n", "hidden": 1}, "hidden"),
        ([], "body"),
    ],
)
def test_a_field_that_cannot_be_is_named(given, field):
    with pytest.raises(Refused) as refused:
        keys.parse(given, "ann")
    assert field in {one.field for one in refused.value.fields}


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (keys.NewKey("ann", Role.OPERATOR, "n", days=1), "role"),
        (keys.NewKey("bob", Role.USER, "n", days=1), "owner"),
        (keys.NewKey("ann", Role.USER, "n"), "days"),
        (keys.NewKey("ann", Role.VIEWER, "n", days=3), "days"),
    ],
)
def test_a_key_gives_no_more_than_it_is(make, sessions, wanted, field):
    _, number = make(days=2)
    by = Principal("ann", Role.USER, number)
    with pytest.raises(Refused) as refused:
        transact(sessions, lambda session: keys.create(session, wanted, by, others=True))
    assert [one.field for one in refused.value.fields] == [field]
    less = keys.NewKey("ann", Role.VIEWER, "n", days=1)
    assert transact(sessions, lambda session: keys.create(session, less, by, others=True)).view.role == "viewer"


def test_a_key_that_has_just_ended_makes_none(client, make, sessions):
    ann, number = make("ann")
    admin, of_admin = make("cleo", Role.ADMIN)
    for headers, ended in ((ann, number), (admin, of_admin)):
        assert client.get(KEYS, headers=headers).status_code == 200
        transact(sessions, lambda session, ended=ended: keys.revoke(session, LOCAL, ended))
        assert client.get(KEYS, headers=headers).status_code == 200, "this process has not heard of it"
        assert client.post(KEYS, json={"name": "stays"}, headers=headers).status_code == 401
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 2


def test_an_admin_who_is_called_local_is_not_a_farm_without_keys(app, make):
    ring = app.extensions[EXTENSION].keyring
    make()
    ring.refresh()
    assert not ring.still_knows(LOCAL)
    assert ring.still_knows(Principal("local", Role.ADMIN)), "with a key of a setting, or signed in elsewhere"


def test_people_see_and_revoke_their_own_keys_and_an_admin_all(client, make):
    ann, of_ann = make("ann")
    _, of_bob = make("bob")
    admin, of_admin = make("cleo", Role.ADMIN)
    assert [one["id"] for one in client.get(KEYS, headers=ann).get_json()["keys"]] == [of_ann]
    assert client.get(f"{KEYS}?all=true", headers=ann).status_code == 403
    assert client.delete(f"{KEYS}/{of_bob}", headers=ann).status_code == 404
    everybodys = client.get(f"{KEYS}?all=true", headers=admin).get_json()["keys"]
    assert {one["id"] for one in everybodys} == {of_ann, of_bob, of_admin}
    assert client.delete(f"{KEYS}/{of_bob}", headers=admin).status_code == 200


def test_a_user_revokes_no_key_that_may_do_more(client, make):
    ann, _ = make("ann")
    _, admins = make("ann", Role.ADMIN)
    assert client.delete(f"{KEYS}/{admins}", headers=ann).status_code == 403


def test_the_page_shows_a_new_key_once(client, clock):
    with client.session_transaction() as cookie:
        cookie["csrf"] = "token"
    made = client.post("/keys", data={"csrf_token": "token", "name": "laptop", "role": "admin", "days": ""})
    assert (made.status_code, made.headers["Cache-Control"]) == (200, "no-store")
    key = made.text.partition('value="sf_')[2].partition('"')[0]
    assert len(key) == 43
    clock.pass_second()
    again = client.get("/keys", headers={"X-API-Key": f"sf_{key}", "Accept": "text/html"})
    assert again.status_code == 200
    assert "laptop" in again.text
    assert key not in again.text


def test_the_page_leads_to_a_further_key_so_that_none_is_made_when_it_is_loaded_again(client, make):
    headers, _ = make("ann")
    with client.session_transaction() as cookie:
        cookie["csrf"] = "token"
    made = client.post("/keys", data={"csrf_token": "token", "name": "laptop", "role": "user"}, headers=headers)
    assert (made.status_code, made.location) == (303, "/keys")
    headers["Accept"] = "text/html"
    shown, again = (client.get("/keys", headers=headers) for _ in range(2))
    assert ('value="sf_' in shown.text, shown.headers["Cache-Control"]) == (True, "no-store")
    assert 'value="sf_' not in again.text
