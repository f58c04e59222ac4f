"""What the API says about itself against what it does: schemathesis makes right and wrong requests of the document."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from flask import Flask
from werkzeug.serving import make_server

from tests.support.applications import application

KEY = "a-key-of-the-fuzzer"
CONFIG = Path(__file__).parents[1] / "data" / "schemathesis.toml"
WAIT_SECONDS = 0.05
HOUR = 3600
WAITS = ["--exclude-path-regex", "^/v1/images/|^/sdapi/v1/(txt2img|img2img|extra-)"]
"""Requests that wait for pictures."""


@pytest.fixture
def url(home: Path, tmp_path: Path) -> Iterator[str]:
    """A socket of the application's: schemathesis is another process, whose pytest plugin no other test has to bear.

    It asks with a key of a setting, which it cannot revoke. Nobody renders here, so no request waits long for pictures.
    """
    keys = {"api_keys": {KEY: "fuzzer"}, "admins": "fuzzer"}
    with application(home, tmp_path, port=0, requests_per_minute=0, door_seconds=WAIT_SECONDS, **keys) as app:
        app.test_client().get("/openapi.json")  # made once; on a busy machine that takes longer than its reader waits
        yield from _served(app)


def _served(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_nothing_that_the_document_allows_or_forbids_is_answered_otherwise_than_it_says(url, tmp_path):
    _fuzzed(url, tmp_path, "fuzzing,stateful", [*WAITS, "--max-examples", "4"], seconds=600)


@pytest.mark.nightly
@pytest.mark.timeout(2 * HOUR)
def test_in_an_hour_no_boundary_of_any_field_is_answered_otherwise_than_the_document_says(url, tmp_path):
    """Also at the doors that wait for pictures."""
    _fuzzed(url, tmp_path, "examples,coverage,fuzzing,stateful", ["--max-time", str(HOUR)], seconds=HOUR + 900)


def _fuzzed(url: str, folder: Path, phases: str, options: list[str], seconds: int) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{url}/openapi.json"]
    given = ["--no-color", "--phases", phases, "--header", f"X-API-Key: {KEY}", *options]
    ran = subprocess.run([*command, *given], cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
