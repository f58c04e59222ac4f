"""People who have signed in at a proxy: its header counts from its own connections, and from nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import run_wsgi_app

from api.app import create_app
from api.security import auth
from api.security.proxies import unwrap
from api.server.bridge import environ_of
from api.services import EXTENSION
from shared.errors import SettingsError
from shared.settings import load
from tests.support.applications import application

HEADER, PROXY, ELSEWHERE = "X-Auth-User", "172.18.0.5", "172.19.0.5"
KEY = "bobs-only-key"
JOBS = "/api/v1/jobs"
SIGNED_IN = {
    "proxy_user_header": HEADER,
    "trusted_proxies": f"{PROXY},172.18.9.0/24",
    "admins": "root@farm.example",
    "api_keys": {KEY: "bob"},
}


@pytest.fixture(scope="module")
def app(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    with application(home, tmp_path_factory.mktemp("farm"), port=0, **SIGNED_IN) as made:
        yield made


@pytest.fixture
def ask(client):
    """Asks as a connection from `peer` would."""

    def asked(name: str | None = None, peer=PROXY, path=JOBS, method="GET", **further):
        headers = ({} if name is None else {HEADER: name}) | further.pop("headers", {})
        return client.open(
            path, method=method, headers=headers, environ_overrides={"REMOTE_ADDR": peer, **further}, buffered=True
        )

    return asked


def raw(app: Flask, *headers: tuple[bytes, bytes], peer: str = PROXY) -> tuple[int, str]:
    """Return status and body of a request with these very headers, as the farm's own server reads them."""
    environ = environ_of(
        {
            "type": "http",
            "method": "POST",
            "raw_path": JOBS.encode(),
            "path": JOBS,
            "query_string": b"",
            "http_version": "1.1",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
            "client": (peer, 4711),
        }
    )
    unwrap(environ, app.extensions[EXTENSION].settings.proxies)
    answer, status, _ = run_wsgi_app(app.wsgi_app, environ, buffered=True)
    return int(status.split()[0]), b"".join(answer).decode()


def test_who_the_proxy_names_is_the_owner(ask):
    assert ask("ann@farm.example", peer="172.18.9.77").status_code == 200
    page = ask("ann@farm.example", path="/jobs")
    assert (page.status_code, "ann@farm.example" in page.text) == (200, True)
    assert ask("Zoë".encode().decode("latin-1"), path="/jobs").text.count("Zoë")


def test_role_is_an_admins_for_those_whom_a_setting_names_and_else_that_of_the_others(ask):
    everybodys = "/api/v1/keys?all=true"
    assert ask("root@farm.example", path=everybodys).status_code == 200
    assert ask("ann@farm.example", path=everybodys).status_code == 403


def test_nobody_else_is_asked_without_a_key_though_the_farm_is_on_loopback(ask):
    assert ask().status_code == 401
    assert ask("").status_code == 401
    assert ask(path="/jobs").headers["Location"].startswith("/sign-in")
    assert ask(headers={"X-API-Key": KEY}).status_code == 200


@pytest.mark.parametrize("path", [JOBS, "/jobs", "/api/v1/nothing", "/v1/models", "/sdapi/v1/samplers"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": KEY}])
def test_header_from_elsewhere_is_refused_also_beside_a_key(ask, path, headers):
    answer = ask("root@farm.example", peer=ELSEWHERE, path=path, headers=headers)
    assert (answer.status_code, "FARM_TRUSTED_PROXIES" in answer.text) == (403, True)


@pytest.mark.parametrize("peer", [ELSEWHERE, "127.0.0.1", "::1", ""])
@pytest.mark.parametrize("forwarded", [PROXY, f"{PROXY}, {PROXY}", f"203.0.113.9, {PROXY}"])
def test_no_forwarded_address_makes_a_connection_the_proxys(ask, peer, forwarded):
    tricks = {"X-Forwarded-For": forwarded, "Forwarded": f"for={PROXY}", "X-Real-IP": PROXY}
    assert ask("root@farm.example", peer=peer, headers=tricks).status_code == 403


@pytest.mark.parametrize("forwarded", ["203.0.113.9", f"{ELSEWHERE}, 203.0.113.9", "unknown", PROXY])
def test_the_proxys_connection_counts_whoever_its_client_is(ask, app, forwarded):
    assert ask("ann", headers={"X-Forwarded-For": forwarded}).status_code == 200
    status, _ = raw(app, (b"x-auth-user", b"ann"), (b"x-forwarded-for", forwarded.encode()))
    assert status == 403, "the token is missing, not the name"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([(b"x-auth-user", b"ann"), (b"x-auth-user", b"root@farm.example")], "cannot be an owner"),
        ([(b"x-auth-user", b"root@farm.example"), (b"x-auth-user", b"root@farm.example")], "cannot be an owner"),
        ([(b"x_auth_user", b"root@farm.example")], "A key is needed"),
        ([(b"x-auth_user", b"root@farm.example")], "A key is needed"),
        ([(b"x-auth-user", b"root@farm.example\xff")], "UTF-8"),
        ([(b"x-auth-user", b"root@farm.example"), (b"x_auth_user", b"ann")], "The form is too old"),
    ],
)
def test_doubled_and_disguised_headers_name_nobody(app, headers, said):
    status, text = raw(app, *headers)
    assert status in (401, 403)
    assert said in text


@pytest.mark.parametrize("name", ["a,b", "a:b", "*", "a" * 61, "a\tb", "ann\x85"])
def test_a_name_that_no_owner_can_have_is_refused(ask, name):
    answer = ask(name)
    assert answer.status_code == 403, answer.text


def test_what_the_proxy_says_counts_more_than_a_key_and_a_cookie(client, ask):
    with client.session_transaction() as session:
        session["csrf"] = "token"
    assert client.post("/sign-in", data={"key": KEY, "csrf_token": "token"}).status_code == 303
    assert "bob" in ask(path="/jobs").text
    page = ask("ann@farm.example", path="/jobs", headers={"X-API-Key": KEY, "Authorization": "Bearer of-the-proxy"})
    assert (page.status_code, "ann@farm.example" in page.text) == (200, True)


def test_a_page_of_another_site_can_do_nothing_with_what_the_proxy_adds(client, ask):
    sent = {"method": "POST", "path": f"{JOBS}/1/cancel"}
    assert ask("ann", **sent).status_code == 403
    with client.session_transaction() as session:
        session["csrf"] = "token"
    assert ask("ann", **sent, headers={"X-CSRF-Token": "token"}).status_code == 404
    assert ask("ann", **sent, headers={"X-CSRF-Token": "guess"}).status_code == 403


def test_large_bodies_are_taken_of_whom_the_proxy_names(app):
    def known(peer: str) -> bool:
        environ = environ_of(
            {"method": "POST", "raw_path": JOBS.encode(), "query_string": b"", "http_version": "1.1",
             "headers": [(b"host", b"localhost"), (b"x-auth-user", b"ann")], "client": (peer, 4711)}
        )  # fmt: skip
        unwrap(environ, app.extensions[EXTENSION].settings.proxies)
        return auth.is_known(app, environ)

    assert (known(PROXY), known(ELSEWHERE)) == (True, False)


def test_viewers_only_look(settings):
    app = create_app(settings.model_copy(update=SIGNED_IN | {"sign_in_role": "viewer"}))
    client, named = app.test_client(), {HEADER: "ann"}
    with client.session_transaction() as session:
        session["csrf"] = "token"
    asked = {"headers": named | {"X-CSRF-Token": "token"}, "environ_overrides": {"REMOTE_ADDR": PROXY}}
    assert client.get(JOBS, **asked).status_code == 200
    assert client.post(JOBS, json={}, **asked).status_code == 403
    app.extensions[EXTENSION].close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"FARM_PROXY_USER_HEADER": HEADER}, "needs FARM_TRUSTED_PROXIES"),
        ({"FARM_PROXY_USER_HEADER": "X_Auth_User"}, "letters, digits and hyphens"),
        ({"FARM_PROXY_USER_HEADER": "Authorization"}, "another purpose"),
        ({"FARM_PROXY_USER_HEADER": HEADER, "FARM_TRUSTED_PROXIES": "proxy"}, "FARM_TRUSTED_PROXIES"),
        ({"FARM_SIGN_IN_ROLE": "admin"}, "FARM_SIGN_IN_ROLE"),
    ],
)
def test_settings_that_would_believe_anybody_are_refused(given, said):
    with pytest.raises(SettingsError, match=said):
        load(given)
