"""Who may do what: keys, owners, cookies, tokens of forms."""

from __future__ import annotations

from hashlib import sha256

import pytest
from sqlalchemy import func, select, text
from werkzeug.test import EnvironBuilder

from api.app import create_app
from api.security import auth
from api.security.key_guesses import FREE_GUESSES
from api.services import EXTENSION
from shared.accounts import browser_sessions
from shared.accounts.secret import kept_secret
from shared.db.tables import BrowserSession
from shared.errors import SettingsError

ANNS, ANNS_OTHER, BOBS = "anns-first-key", "anns-other-key", "bobs-only-key"
JOBS = "/api/v1/jobs"


@pytest.fixture
def keyed(settings):
    """Makes the application of the same farm with other keys."""
    made = []

    def make(**owners: str):
        keys = owners or {ANNS: "ann", ANNS_OTHER: "ann", BOBS: "bob"}
        made.append(create_app(settings.model_copy(update={"api_keys": keys})))
        return made[-1]

    yield make
    for app in made:
        app.extensions[EXTENSION].close()


@pytest.fixture
def client(keyed):
    return keyed().test_client()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def sign_in(client, key: str) -> None:
    with client.session_transaction() as session:
        session["csrf"] = "token"
    assert client.post("/sign-in", data={"key": key, "csrf_token": "token"}).status_code == 303


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "farm.example"])
def test_other_machines_are_answered_by_no_farm_without_keys(settings, host):
    app = create_app(settings.model_copy(update={"host": host}))
    answer = app.test_client().get("/api/v1/jobs")
    assert (answer.status_code, "farm keys create" in answer.get_json()["detail"]) == (401, True)
    app.extensions[EXTENSION].close()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong-key"),
        bearer(""),
        bearer(ANNS[:-1]),
        bearer(ANNS + "x"),
        bearer("ann:" + ANNS),
        {"Authorization": f"Basic {ANNS}"},
        {"X-API-Key": "schlüssel"},
        {"Cookie": "session=x; stepfarm=y"},
    ],
)
def test_without_a_known_key_nothing_is_told(client, headers):
    for path in (JOBS, f"{JOBS}/1", "/api/v1/checkpoints", "/metrics", "/api/v1/nothing"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.mimetype == "application/problem+json"
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_health_is_told_to_anybody(client):
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("headers", [bearer(ANNS), {"Authorization": f"bearer  {ANNS}"}, {"X-API-Key": ANNS_OTHER}])
def test_owner_is_who_has_the_key(client, headers, checkpoint_factory):
    checkpoint_factory()
    assert client.post(JOBS, json={}, headers=headers).get_json()["owner"] == "ann"


def test_owners_see_their_own_jobs(client, job_factory):
    anns, bobs = job_factory(owner="ann"), job_factory(owner="bob")
    listed = client.get(JOBS, headers=bearer(ANNS)).get_json()["jobs"]
    assert [job["id"] for job in listed] == [anns.id]
    assert client.get(f"{JOBS}/{bobs.id}", headers=bearer(ANNS)).status_code == 404


def test_idempotency_keys_are_each_owners_own(client, checkpoint_factory):
    checkpoint_factory()
    ids = {
        client.post(JOBS, json={}, headers=bearer(key) | {"Idempotency-Key": "k"}).get_json()["id"]
        for key in (ANNS, ANNS_OTHER, BOBS)
    }
    assert len(ids) == 2


def test_browser_without_a_key_is_led_to_the_sign_in_page(client):
    answer = client.get("/jobs/3?page=2")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/sign-in?next=%2Fjobs%2F3%3Fpage%3D2"


def test_key_is_traded_for_a_cookie_that_scripts_and_other_sites_cannot_use(client):
    with client.session_transaction() as session:
        session["csrf"] = "token"
    answer = client.post("/sign-in", data={"key": ANNS, "csrf_token": "token"})
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert ANNS not in cookie
    assert client.get("/jobs").status_code == 200


def test_cookie_is_for_tls_alone_where_it_was_given_over_tls(client):
    client.get("/sign-in", base_url="https://localhost")
    with client.session_transaction(base_url="https://localhost") as session:
        token = session["csrf"]
    answer = client.post("/sign-in", data={"key": ANNS, "csrf_token": token}, base_url="https://localhost")
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")


@pytest.mark.parametrize(
    ("peer", "forwarded", "is_secure"),
    [
        ("127.0.0.1", "https", True),
        ("127.0.0.1", "https,http", True),
        ("10.0.0.7", "https", False),
        ("172.18.0.1", "https", True),
        ("127.0.0.1", "http", False),
    ],
)
def test_cookie_is_for_tls_alone_behind_a_trusted_proxy_that_speaks_it(settings, peer, forwarded, is_secure):
    trusted = {"api_keys": {ANNS: "ann"}, "trusted_proxies": "127.0.0.1,172.16.0.0/12"}
    app = create_app(settings.model_copy(update=trusted))
    answer = app.test_client().get(
        "/sign-in", headers={"X-Forwarded-Proto": forwarded}, environ_overrides={"REMOTE_ADDR": peer}
    )
    assert ("Secure" in answer.headers["Set-Cookie"].split("; ")) is is_secure
    app.extensions[EXTENSION].close()


def test_cookie_holds_nothing_of_the_key(client):
    sign_in(client, ANNS)
    cookie = client.get_cookie(client.application.config["SESSION_COOKIE_NAME"])
    with client.session_transaction() as session:
        held = dict(session)
    assert set(held) <= {"id", "csrf"}
    sign_in(client, ANNS)
    with client.session_transaction() as session:
        assert session["id"] != held["id"]
    digest = sha256(ANNS.encode()).hexdigest()
    assert digest[:8] not in cookie.value + str(held)


def test_table_of_sessions_holds_neither_ids_nor_what_a_key_can_be_tried_against(client, sessions):
    sign_in(client, ANNS)
    with client.session_transaction() as session:
        identifier = session["id"]
    with sessions() as rows:
        (row,) = rows.scalars(select(BrowserSession)).all()
    assert identifier not in str(vars(row))
    assert sha256(ANNS.encode()).hexdigest() not in str(vars(row))
    assert row.owner == "ann"


def test_copied_cookie_ends_with_the_sign_out_in_every_process(keyed, client):
    sign_in(client, ANNS)
    cookie = client.get_cookie(client.application.config["SESSION_COOKIE_NAME"])
    thief = keyed().test_client()
    thief.set_cookie(cookie.key, cookie.value)
    assert thief.get(JOBS).status_code == 200
    client.get("/jobs")
    with client.session_transaction() as session:
        token = session["csrf"]
    assert client.post("/sign-out", data={"csrf_token": token}).status_code == 303
    assert thief.get(JOBS).status_code == 401


@pytest.mark.parametrize("age", ["used_at = now() - interval '8 days'", "created_at = now() - interval '31 days'"])
def test_session_that_is_old_has_ended(client, sessions, age):
    sign_in(client, ANNS)
    with sessions.begin() as rows:
        rows.execute(text(f"UPDATE browser_sessions SET {age}"))
    assert client.get(JOBS).status_code == 401
    sign_in(client, ANNS)
    with sessions() as rows:
        assert rows.scalar(select(func.count()).select_from(BrowserSession)) == 1


def test_session_that_is_used_lasts(client, sessions):
    sign_in(client, ANNS)
    with sessions.begin() as rows:
        rows.execute(text("UPDATE browser_sessions SET used_at = now() - interval '6 days'"))
    assert client.get(JOBS).status_code == 200
    with sessions() as rows:
        assert rows.scalar(text("SELECT now() - used_at < interval '1 minute' FROM browser_sessions"))


def test_sessions_of_an_owner_are_bounded(client, sessions, monkeypatch):
    monkeypatch.setattr(browser_sessions, "MOST_OF_AN_OWNER", 3)
    sign_in(client, BOBS)
    for _ in range(5):
        sign_in(client, ANNS)
    with sessions() as rows:
        owners = rows.scalars(select(BrowserSession.owner)).all()
    assert sorted(owners) == ["ann"] * 3 + ["bob"]
    assert client.get(JOBS).status_code == 200


def test_guessing_at_the_sign_in_page_is_slowed_and_told(client):
    with client.session_transaction() as session:
        session["csrf"] = "token"
    answers = [client.post("/sign-in", data={"key": f"guess-{n}", "csrf_token": "token"}) for n in range(30)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:FREE_GUESSES] == [401] * FREE_GUESSES
    assert set(statuses[FREE_GUESSES + 1 :]) == {429}
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert "Too many wrong keys" in answers[-1].text


def test_guessing_by_header_is_slowed_and_a_key_in_use_goes_on(client, caplog):
    assert client.get(JOBS, headers=bearer(BOBS)).status_code == 200
    answers = [client.get(JOBS, headers=bearer(f"guess-{n}")) for n in range(30)]
    assert answers[-1].status_code == 429
    assert answers[-1].mimetype == "application/problem+json"
    assert client.get(JOBS, headers=bearer(ANNS)).status_code == 429  # it might be a guess
    assert client.get(JOBS, headers=bearer(BOBS)).status_code == 200
    other = client.get(JOBS, headers=bearer(ANNS), environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    assert other.status_code == 200


def large_from(key: str, **further: str) -> dict[str, object]:
    """The check that decides whether a client may send a large body."""
    return (
        EnvironBuilder(JOBS, method="POST", headers=bearer(key)).get_environ() | {"REMOTE_ADDR": "192.0.2.9"} | further
    )


def test_large_bodies_are_taken_of_those_with_a_key_until_keys_are_tried_too_fast(client):
    app = client.application
    assert auth.is_known(app, large_from(ANNS))
    assert not any(auth.is_known(app, large_from(f"guess-{n}")) for n in range(FREE_GUESSES))
    assert not auth.is_known(app, large_from(ANNS))
    assert client.get(JOBS, headers=bearer(ANNS), environ_overrides={"REMOTE_ADDR": "192.0.2.9"}).status_code == 429
    assert auth.is_known(app, large_from(ANNS, REMOTE_ADDR="192.0.2.8"))


def test_wrong_key_of_a_large_body_counts_once(client):
    for number in range(FREE_GUESSES - 1):
        asked = large_from(f"guess-{number}")
        auth.is_known(client.application, asked)
        assert client.open(environ_overrides=asked).status_code == 401
    assert client.get(JOBS, headers=bearer(ANNS), environ_overrides={"REMOTE_ADDR": "192.0.2.9"}).status_code == 200


def test_health_is_told_whatever_key_comes_with_it(client):
    for path in ("/livez", "/readyz", "/openapi.json", "/sign-in"):
        assert [client.get(path, headers=bearer("wrong-key")).status_code for _ in range(15)] == [200] * 15, path


def test_key_that_is_taken_away_signs_out(keyed, client):
    sign_in(client, ANNS)
    cookie = client.get_cookie(client.application.config["SESSION_COOKIE_NAME"])
    for keys, status in (({ANNS: "ann", BOBS: "bob"}, 200), ({ANNS_OTHER: "ann"}, 401), ({ANNS: "eve"}, 401)):
        other = keyed(**keys).test_client()
        other.set_cookie(cookie.key, cookie.value)
        assert other.get(JOBS).status_code == status, keys


def test_cookie_of_another_farm_is_worth_nothing(settings, client, tmp_path):
    sign_in(client, ANNS)
    cookie = client.get_cookie(client.application.config["SESSION_COOKIE_NAME"])
    other = create_app(settings.model_copy(update={"api_keys": {ANNS: "ann"}, "home": tmp_path / "other"}))
    stranger = other.test_client()
    stranger.set_cookie(other.config["SESSION_COOKIE_NAME"], cookie.value)
    assert stranger.get(JOBS).status_code == 401
    other.extensions[EXTENSION].close()


def test_signing_out_forgets(client):
    sign_in(client, ANNS)
    client.get("/jobs")
    with client.session_transaction() as session:
        token = session["csrf"]
    assert client.post("/sign-out", data={"csrf_token": token}).status_code == 303
    assert client.get(JOBS).status_code == 401


@pytest.mark.parametrize("headers", [{}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "guess"}])
def test_cookie_alone_changes_nothing(client, checkpoint_factory, headers):
    checkpoint_factory()
    sign_in(client, ANNS)
    assert client.post(JOBS, json={}, headers=headers).status_code == 403
    assert client.get(JOBS).get_json()["jobs"] == []


def test_cookie_with_its_token_does(client, checkpoint_factory):
    checkpoint_factory()
    sign_in(client, ANNS)
    client.get("/")
    with client.session_transaction() as session:
        token = session["csrf"]
    assert client.post(JOBS, json={}, headers={"X-CSRF-Token": token}).status_code == 202


@pytest.mark.parametrize("form", [{}, {"csrf_token": ""}, {"csrf_token": "guess"}, {"csrf_token": "ä"}])
def test_form_without_its_token_is_refused(app, form):
    client = app.test_client()
    client.get("/")
    assert client.post("/jobs", data={"prompt": "x"} | form).status_code == 403


def test_secret_is_made_once_for_the_owner_alone(settings):
    secrets = {kept_secret(settings.home) for _ in range(3)}
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 32
    assert (settings.home / "secret").stat().st_mode & 0o777 == 0o600
    assert [file.name for file in settings.home.iterdir()] == ["secret"]


def test_home_that_keeps_no_secret_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="FARM_SECRET_KEY"):
        kept_secret(tmp_path / "file" / "home")
