"""The API as the server serves it: a real process, a real socket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from api.socket import GRACE_SECONDS, address, listen
from shared.errors import SettingsError
from shared.settings import Settings
from tests.integration.test_api_uploads import data_url, picture
from tests.support.servers import clean_environment
from tests.support.serving import Served, received, serving
from tests.support.waiting import until

LOADING_WHILE_STOPPED = """
import os, signal
from api import serve

make = serve.create_app

def create_app(settings):
    os.kill(os.getpid(), signal.SIGTERM)
    return make(settings)

serve.create_app = create_app
serve.main()
"""

KEY = "a-key-of-a-setting"
SLOW_TO_ANSWER = """
import sys, time
from api import serve

make, serve.GRACE_SECONDS = serve.create_app, 1

def create_app(settings):
    def slow():
        sys.stderr.write("slow\\n")  # in one piece: two threads write
        time.sleep(60)
        return "done"

    app = make(settings)
    app.add_url_rule("/static/slow", "slow", slow)
    return app

serve.create_app = create_app
serve.main()
"""


@pytest.fixture
def served(settings, environ) -> Iterator[Served]:
    with serving(settings, environ) as one:
        httpx.get(f"{one.url}/livez", timeout=30)  # who comes early waits in the socket's queue
        yield one


@pytest.fixture(scope="module")
def standing(tmp_path_factory) -> Iterator[Served]:
    """A server for requests that never get as far as its database."""
    folder = tmp_path_factory.mktemp("farm")
    given = {"home": folder, "models": folder, "port": 0, "api_keys": f"ann:{KEY}"}
    environ = clean_environment() | {f"FARM_{name.upper()}": str(value) for name, value in given.items()}
    with serving(Settings(**given), environ) as one:
        httpx.get(f"{one.url}/livez", timeout=30)
        yield one


def test_port_zero_is_a_real_port_before_the_server_starts(settings):
    with listen(settings) as listener:
        assert address(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert listener.getsockname()[1] != 0


def test_taken_port_is_told(settings):
    with listen(settings) as listener:
        taken = settings.model_copy(update={"port": listener.getsockname()[1]})
        with pytest.raises(SettingsError, match="FARM_PORT"):
            listen(taken)


def test_an_admin_without_a_key_ends_the_start(settings):
    with pytest.raises(SettingsError, match=r"FARM_ADMINS='ann,dan'.*: dan"):
        listen(settings.model_copy(update={"admins": "ann,dan", "api_keys": {"a-long-key": "ann"}}))


def test_job_is_taken_and_told(served, checkpoint_factory):
    checkpoint_factory()
    with httpx.Client(base_url=served.url) as client:
        answer = client.post("/api/v1/jobs", json={"prompt": "x"})
        assert answer.status_code == 202
        assert client.get(answer.headers["Location"]).json()["params"]["prompt"] == "x"


def test_body_of_fifty_megabytes_is_refused_before_it_is_read(standing):
    host, port = standing.url.removeprefix("http://").split(":")
    head = (
        f"POST /api/v1/jobs HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"X-API-Key: {KEY}\r\nContent-Length: {50 * 2**20}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(head.encode() + b'{"prompt": "')  # and no more: the answer does not wait for the rest
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413 ")
    assert "application/problem+json" in answer


def test_client_that_sends_fifty_megabytes_hears_why_they_are_refused(standing):
    answer = httpx.post(
        f"{standing.url}/api/v1/jobs",
        content=b"a" * 50 * 2**20,
        headers={"Content-Type": "application/json", "X-API-Key": KEY},
        timeout=30,
    )
    assert answer.status_code == 413
    assert answer.json()["detail"]


def test_chunked_body_over_the_limit_is_refused(standing):
    def chunks():
        for _ in range(64):
            yield b" " * 2**16

    headers = {"Content-Type": "application/json", "X-API-Key": KEY}
    answer = httpx.post(f"{standing.url}/api/v1/jobs", content=chunks(), headers=headers)
    assert answer.status_code == 413


def test_header_that_holds_a_line_break_never_gets_in(standing):
    host, port = standing.url.removeprefix("http://").split(":")
    head = f"GET /livez HTTP/1.1\r\nHost: {host}:{port}\r\nIdempotency-Key: a\rb: c\r\n\r\n"
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.alone
@pytest.mark.parametrize("end", [Served.stop, Served.interrupt])
def test_stopping_does_not_wait_for_streams(served, job_factory, end):
    job = job_factory()
    with httpx.stream("GET", f"{served.url}/api/v1/jobs/{job.id}/events", timeout=30) as stream:
        assert next(stream.iter_lines()) == "event: job"
        assert end(served) < GRACE_SECONDS / 2
    assert served.process.returncode == 0


@pytest.mark.alone
def test_stopping_does_not_wait_for_threads_past_the_grace_and_tells_who_waits(settings, environ):
    with serving(settings, environ | {"FARM_API_THREADS": "2"}, SLOW_TO_ANSWER) as one, ExitStack() as open_ones:
        ask = b"GET /static/slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        clients = [open_ones.enter_context(one.connect(ask)) for _ in range(4)]
        for _ in range(2):
            until(lambda: "slow" in one.process.stderr.readline(), 20, "a thread to be taken")
        one.process.terminate()
        _, told = one.process.communicate(timeout=15)
        answers = [received(client) for client in clients]
    assert one.process.returncode == 0
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 503 "] * 4
    assert "Traceback" not in told


@pytest.mark.alone
def test_stream_ends_with_its_client_though_further_requests_came_behind_it(settings, environ, job_factory):
    path = f"/api/v1/jobs/{job_factory().id}/events"
    ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    with serving(settings, environ | {"FARM_MAX_STREAMS": "1"}) as one:
        with one.connect(ask * 2) as client:
            until(lambda: b"event: job" in client.recv(65536), 10, "the stream to begin")
            assert httpx.get(f"{one.url}{path}", timeout=10).status_code == 503

        def is_free() -> bool:
            with httpx.stream("GET", f"{one.url}{path}", timeout=10) as stream:
                return stream.status_code == 200

        until(is_free, 4, "the stream's place to be free")


def test_told_to_stop_while_it_starts_it_ends_without_a_fault(settings, environ):
    with serving(settings, environ, LOADING_WHILE_STOPPED) as one:
        _, told = one.process.communicate(timeout=30)
    assert one.process.returncode == 0
    assert "Error" not in told


def test_api_that_has_served_all_kinds_of_requests_has_loaded_no_tensors(environ, settings, checkpoint_factory):
    checkpoint_factory()
    script = """
import json, sys
from api.app import create_app
from shared.settings import load

client = create_app(load()).test_client()
statuses = [
    client.get("/readyz").status_code,
    client.post("/api/v1/jobs", json={"prompt": "x"}).status_code,
    client.get("/").status_code,
    client.get("/jobs").status_code,
    client.get("/metrics").status_code,
    client.post("/api/v1/controlnet/preview", json={"controlnet": [{"model": "", "picture": PICTURE}]}).status_code,
]
client.application.extensions["stepfarm"].close()
heavy = sorted(
    {"torch", "diffusers", "transformers", "safetensors", "worker", "numpy", "scipy"} & set(sys.modules)
)
print(json.dumps([statuses, heavy]))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"PICTURE = {data_url(picture())!r}\n{script}"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[200, 202, 200, 200, 200, 200], []]
