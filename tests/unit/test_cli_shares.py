"""`farm share`, `farm shares` and `farm change --after`: what the commands ask the API for."""

from __future__ import annotations

import json

import httpx
import pytest
from typer.testing import CliRunner

from cli import main as cli
from client.client import Client

LINK = {"id": 3, "job_id": 17, "index": 0, "created_at": "2026-11-30T10:00:00Z", "expires_at": "2026-12-07T10:00:00Z"}
ANSWERS = {
    "GET /api/v1/shares": {"shares": [LINK]},
    "POST /api/v1/shares": LINK | {"link": "http://farm/s/token"},
    "DELETE /api/v1/shares/3": None,
    "PATCH /api/v1/jobs/17": {"images": 1, "job": {"id": 17}},
}


@pytest.fixture
def farm(monkeypatch):
    """Runs a command; returns how it ended and what it asked of the API."""

    def run(*words):
        asked = []

        def answer(request):
            name = f"{request.method} {request.url.path}"
            asked.append((name, json.loads(request.content or "null")))
            body = ANSWERS[name]
            return httpx.Response(204) if body is None else httpx.Response(200, json=body)

        client = Client("http://farm", transport=httpx.MockTransport(answer))
        monkeypatch.setattr("cli.connect.connect", lambda _: client)
        return CliRunner().invoke(cli.app, words), asked

    return run


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["17"], {"job": 17}),
        (["17.0", "--days", "7"], {"job": 17, "index": 0, "days": 7}),
    ],
)
def test_share_makes_a_link_and_prints_it_alone(farm, words, asked):
    ended, requests = farm("share", *words)
    assert requests == [("POST /api/v1/shares", asked)]
    assert ended.stdout == "http://farm/s/token\n"
    assert "`farm share --revoke 3`" in ended.stderr


def test_links_are_listed_and_revoked(farm):
    ended, _ = farm("shares")
    assert ended.stdout.splitlines()[1].split()[:3] == ["3", "picture", "17.0"]
    assert farm("share", "--revoke", "3")[1] == [("DELETE /api/v1/shares/3", None)]


@pytest.mark.parametrize("words", [[], ["17", "--revoke", "3"], ["17.x"], ["0"], ["sea"]])
def test_what_is_neither_a_job_nor_a_picture_asks_for_nothing(farm, words):
    ended, requests = farm("share", *words)
    assert (ended.exit_code, requests) == (2, [])


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--after", "12,13", "--on", "end"], {"after": ["12,13"], "on": "end"}),
        (["--after", "none"], {"after": []}),
        (["--priority", "5"], {"priority": 5}),
    ],
)
def test_change_says_what_a_job_waits_for(farm, words, asked):
    assert farm("change", "17", *words)[1] == [("PATCH /api/v1/jobs/17", asked)]
