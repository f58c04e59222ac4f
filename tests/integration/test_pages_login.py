"""The pages of a farm with keys: a person trades a key for a cookie, and sees what is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from api.services import EXTENSION
from tests.support.browsing import look, page, send

ANN, BOB = "ann-long-secret", "bob-long-secret"


@pytest.fixture
def client(settings) -> Iterator[FlaskClient]:
    app = create_app(settings.model_copy(update={"api_keys": {ANN: "ann", BOB: "bob"}}))
    yield app.test_client()
    app.extensions[EXTENSION].close()


def sign_in(client: FlaskClient, key: str, wanted: str = "/"):
    return send(client, "/sign-in", "/sign-in", key=key, next=wanted)


def test_page_sends_whoever_is_not_signed_in_to_the_key_and_back(client):
    answer = client.get("/jobs?state=failed")
    assert answer.status_code == 303
    shown = look(client, answer.location)
    wanted = shown.value("next")
    assert wanted == "/jobs?state=failed"
    assert sign_in(client, ANN, wanted).location == wanted
    assert "ann" in look(client, wanted).text


def test_cookie_is_kept_from_scripts_and_other_sites(client):
    cookie = sign_in(client, ANN).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert ANN not in cookie


def test_wrong_key_is_told_beside_the_field(client):
    answer = sign_in(client, "no-such-secret")
    assert answer.status_code == 401
    assert page(answer).all("p", id="key-error")
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("address", ["//[", "/\\[", "//a]"])
def test_address_that_makes_no_sense_leads_to_the_first_page(client, address):
    assert look(client, f"/sign-in?{urlencode({'next': address})}").value("next") == "/"


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example"],
)
def test_nobody_is_sent_to_another_site(client, wanted):
    assert sign_in(client, ANN, wanted).location == "/"


def test_sign_out_forgets(client):
    sign_in(client, ANN)
    assert send(client, "/sign-out").location == "/sign-in"
    assert client.get("/jobs").status_code == 303


def test_pages_are_not_kept_where_going_back_would_show_them_to_the_next_person(client):
    sign_in(client, ANN)
    assert client.get("/jobs").headers["Cache-Control"] == "no-store"


def test_job_of_somebody_else_is_not_there(client, job_factory):
    job = job_factory(owner="bob")
    sign_in(client, ANN)
    look(client, f"/jobs/{job.id}", 404)
    assert f"Job {job.id}" not in look(client, "/jobs").text
    sign_in(client, BOB)
    look(client, f"/jobs/{job.id}")


def test_form_from_before_another_sign_in_is_refused(client):
    sign_in(client, ANN)
    old = look(client, "/").value("csrf_token")
    sign_in(client, ANN)
    assert send(client, "/jobs", csrf_token=old, prompt="a").status_code == 403
