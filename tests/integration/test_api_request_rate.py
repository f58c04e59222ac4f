"""Requests of a key are bounded, in the words of each door, and Redis holds none of them up."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import create_app
from api.services import EXTENSION
from cli.embedded import binaries
from shared.errors import Unavailable
from tests.support.waiting import until

KEY, OTHERS = "anns-first-key", "bobs-only-key"
ANN, BOB = {"X-API-Key": KEY}, {"X-API-Key": OTHERS}


@pytest.fixture
def process(settings):
    """Makes processes of one farm that answers three requests of a key within a minute."""
    made = []

    def make(most=3, **further):
        keys = {"api_keys": {KEY: "ann", OTHERS: "bob"}, "requests_per_minute": most}
        made.append(create_app(settings.model_copy(update=keys | further)))
        made[-1].extensions[EXTENSION].request_rate._clock = lambda: 6012.5
        return made[-1]

    yield make
    for app in made:
        app.extensions[EXTENSION].close()


def test_too_many_requests_are_refused_as_each_door_does(process):
    client = process().test_client()
    assert [client.get("/api/v1/samplers", headers=ANN).status_code for _ in range(4)] == [200, 200, 200, 429]
    answers = {path: client.get(path, headers=ANN) for path in ("/api/v1/jobs", "/v1/models", "/sdapi/v1/samplers")}
    answers["/replicate/v1/models"] = client.get("/replicate/v1/models", headers=ANN)
    answers["/jobs"] = client.get("/jobs", headers=ANN)
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in answers.values()} == {(429, "48")}
    said = "More than 3 requests came with this key within a minute: try again in 48 s."
    assert answers["/api/v1/jobs"].get_json()["detail"] == answers["/replicate/v1/models"].get_json()["detail"] == said
    assert answers["/sdapi/v1/samplers"].get_json()["detail"] == said
    error = answers["/v1/models"].get_json()["error"]
    assert (error["message"], error["type"], error["code"]) == (said, "requests", "rate_limit_exceeded")
    assert said in answers["/jobs"].text
    assert client.get("/api/v1/jobs", headers=BOB).status_code == 200
    assert [client.get(path, headers=ANN).status_code for path in ("/livez", "/sign-in", "/openapi.json")] == [200] * 3


def test_processes_of_a_farm_count_together(process):
    first, second = process(), process()
    for app, number in ((first, 2), (second, 1)):
        client, rate = app.test_client(), app.extensions[EXTENSION].request_rate
        assert [client.get("/api/v1/samplers", headers=ANN).status_code for _ in range(number)] == [200] * number
        rate.tell()
        until(lambda rate=rate: not rate._untold, 5, "the count to reach the others")
    until(lambda: second.test_client().get("/api/v1/samplers", headers=ANN).status_code == 429, 5, "the bound")


@pytest.fixture
def stopped_redis(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis that was stopped while it ran: it takes connections, and never answers."""
    path = tmp_path / "redis"
    options = ["--port", "0", "--save", "", "--unixsocket", path, "--dir", tmp_path]
    process = subprocess.Popen([binaries.redis(), *options], stdout=subprocess.DEVNULL)
    try:
        until(path.exists, 10, "Redis to listen")
        os.kill(process.pid, signal.SIGSTOP)
        yield f"unix://{path}"
    finally:
        process.kill()
        process.wait(10)


def test_a_silent_redis_holds_no_request_up(process, stopped_redis):
    app = process(most=20, redis_url=stopped_redis)
    client, rate = app.test_client(), app.extensions[EXTENSION].request_rate
    client.get("/api/v1/samplers", headers=BOB)
    began = time.monotonic()
    statuses = [client.get("/api/v1/samplers", headers=ANN).status_code for _ in range(21)]
    assert time.monotonic() - began < 2, "a second for each that waited for Redis"
    assert statuses == [200] * 20 + [429]
    began = time.monotonic()
    with pytest.raises(Unavailable):
        rate._add(100, {"key": 1})
    assert time.monotonic() - began < 2
