"""Pages of other sites can do nothing to a farm on this machine."""

from __future__ import annotations

import pytest
from flask import Flask

from api.app import create_app
from api.services import EXTENSION

JOBS = "/api/v1/jobs"


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


def test_loopback_names_are_known(client):
    for host in ("localhost", "LOCALHOST:8321", "127.0.0.1:8321", "[::1]:8321", "localhost:9"):
        assert client.get(JOBS, headers={"Host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "evil.example:8321",
        "10.0.0.1",
        "[::1",
        "a@localhost.x",
    ],
)
def test_foreign_host_is_refused(client, host):
    answer = client.get(JOBS, headers={"Host": host})
    assert answer.status_code == 403
    assert "FARM_ALLOWED_HOSTS" in answer.get_json()["detail"]


def test_further_hosts_are_allowed_by_setting(settings):
    app = create_app(settings.model_copy(update={"allowed_hosts": "farm.example, Other.example"}))
    for host in ("farm.example", "other.example:8321", "localhost"):
        assert app.test_client().get(JOBS, headers={"Host": host}).status_code == 200
    assert app.test_client().get(JOBS, headers={"Host": "evil.example"}).status_code == 403
    app.extensions[EXTENSION].close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_other_page_cannot_post(client, headers):
    before = client.get(JOBS).get_json()
    for path in (JOBS, "/jobs", f"{JOBS}/1/cancel", "/api/v1/checkpoints/rescan", "/sign-in"):
        assert client.post(path, json={}, headers=headers).status_code == 403, path
    assert client.get(JOBS).get_json() == before


def test_form_that_a_proxy_passed_on_under_its_own_host_is_told_what_to_pass(client):
    answer = client.post(JOBS, json={}, headers={"Origin": "https://farm.example:8443"})
    assert answer.status_code == 403
    detail = answer.get_json()["detail"]
    for word in ("farm.example:8443", "localhost", "proxy_set_header Host $http_host", "FARM_ALLOWED_HOSTS"):
        assert word in detail


def test_pages_under_a_name_that_the_operator_gave_are_the_farms_whatever_host_a_proxy_puts(settings):
    app = create_app(settings.model_copy(update={"allowed_hosts": "farm.example"}))
    for origin, status in (
        ("https://farm.example", 422),
        ("https://FARM.example:8443", 422),
        ("https://evil.example", 403),
        ("https://farm.example.evil.example", 403),
        ("null", 403),
    ):
        answer = app.test_client().post(JOBS, json={"nothing": 1}, headers={"Origin": origin})
        assert answer.status_code == status, origin
    app.extensions[EXTENSION].close()


@pytest.mark.parametrize(("method", "path"), [("TRACE", "/jobs"), ("PUT", "/"), ("PATCH", JOBS), ("PROPFIND", "/")])
def test_method_that_a_route_does_not_know_is_told_with_those_it_knows(client, method, path):
    answer = client.open(path, method=method)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", [JOBS, "/api/v1/uploads", "/jobs"])
def test_compressed_body_is_refused(client, path):
    answer = client.post(path, data=b"abc", headers={"Content-Encoding": "gzip"}, content_type="application/json")
    assert answer.status_code == 415


def test_other_page_cannot_delete(client):
    job = client.post(JOBS, json={}).headers["Location"]
    assert client.delete(job, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get(job).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://localhost"}, {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}]
)
def test_own_pages_and_programs_can(client, headers):
    assert client.post(JOBS, json={}, headers=headers).status_code == 202


def test_link_from_elsewhere_is_followed_but_nothing_is_embedded(client):
    site = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/jobs", headers=site | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert client.get(JOBS, headers=site | {"Sec-Fetch-Mode": "no-cors"}).status_code == 403


def test_every_answer_is_fenced_in(client):
    for path in ("/", "/jobs", "/nothing", JOBS, "/api/v1/nothing", "/livez", "/openapi.json", "/reference"):
        headers = client.get(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy, path
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
