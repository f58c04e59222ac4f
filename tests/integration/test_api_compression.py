"""Texts are sent compressed, and pages that have not changed not at all."""

from __future__ import annotations

import gzip
import re

import pytest
from flask import Flask, Response

from api.http import compression
from api.pages import assets

GZIP = {"Accept-Encoding": "gzip"}


@pytest.fixture(scope="module")
def app(standing_app: Flask) -> Flask:
    return standing_app


@pytest.mark.parametrize("path", ["/", "/reference", "/openapi.json", "/static/now/live.js", "/static/now/base.css"])
def test_text_is_compressed_for_who_can_read_that(client, path):
    plain, packed = client.get(path, buffered=True), client.get(path, headers=GZIP, buffered=True)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["Vary"]
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert packed.content_length == len(packed.data) < len(plain.data) / 2
    if path != "/":  # whose token of forms is another each time
        assert gzip.decompress(packed.data) == plain.data


@pytest.mark.parametrize("accepted", ["", "identity", "gzip;q=0", "br", "*;q=0"])
def test_text_is_plain_for_who_cannot(client, accepted):
    assert "Content-Encoding" not in client.get("/reference", headers={"Accept-Encoding": accepted}).headers


def test_small_answers_and_streams_are_not_compressed(client):
    job = client.post("/api/v1/jobs", json={}).headers["Location"]
    assert "Content-Encoding" not in client.get("/livez", headers=GZIP).headers
    with client.get(f"{job}/events", headers=GZIP, buffered=False) as stream:
        assert "Content-Encoding" not in stream.headers
        assert next(stream.response).startswith(b"event: job")


def test_text_that_is_made_while_it_is_sent_is_not_made_before():
    app, made = Flask("texts"), []
    compression.init_app(app)

    @app.get("/")
    def lines():
        return Response((made.append(number) or "a line\n" * 1000 for number in range(3)), mimetype="text/plain")

    with app.test_client().get("/", headers=GZIP, buffered=False) as answer:
        assert len(made) <= 1
        assert "Content-Encoding" not in answer.headers
        assert answer.data == b"a line\n" * 3000


def test_head_tells_the_same_as_get(client):
    got, head = client.get("/reference", headers=GZIP), client.head("/reference", headers=GZIP)
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    assert head.data == b""


def test_job_that_has_not_changed_is_not_sent_again_however_it_was_sent(client):
    job = client.post("/api/v1/jobs", json={}).headers["Location"]
    packed = client.get(job, headers=GZIP)
    assert packed.headers["Content-Encoding"] == "gzip"
    assert client.get(job, headers=GZIP | {"If-None-Match": packed.headers["ETag"]}).status_code == 304
    assert client.get(job, headers={"If-None-Match": packed.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize("path", ["/", "/jobs", "/workers"])
def test_page_that_has_not_changed_is_not_sent_again(client, path):
    first = client.get(path, headers=GZIP)
    again = client.get(path, headers=GZIP | {"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.data == b""


def test_page_that_has_changed_is(client):
    first = client.get("/jobs")
    client.post("/api/v1/jobs", json={})
    again = client.get("/jobs", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 200


def test_files_of_pages_are_kept_for_good_under_the_address_that_pages_name(client):
    link = re.search(r'href="(/static/[^"]+\.css)"', client.get("/").text)[1]
    answer = client.get(link, headers=GZIP, buffered=True)
    assert f"/{assets.digest()}/" in link
    assert {"immutable", f"max-age={assets.YEAR_SECONDS}"} <= set(answer.headers["Cache-Control"].split(", "))
    again = client.get(link, headers=GZIP | {"If-None-Match": answer.headers["ETag"]}, buffered=True)
    assert again.status_code == 304
