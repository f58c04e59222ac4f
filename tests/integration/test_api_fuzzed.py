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


@pytest.fixture
def url(home: Path, tmp_path: Path) -> Iterator[str]:
    """A socket of the application's: schemathesis is another process, whose pytest plugin no other test has to bear.

    It asks with a key of a setting, which it cannot revoke.
    """
    keys = {"api_keys": {KEY: "fuzzer"}, "admins": "fuzzer"}
    with application(home, tmp_path, port=0, requests_per_minute=0, **keys) as app:
        yield from _served(app)


def _served(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.mark.parametrize(
    "phases", ["fuzzing,stateful", pytest.param("examples,coverage,fuzzing,stateful", marks=pytest.mark.nightly)]
)
def test_nothing_that_the_document_allows_or_forbids_is_answered_otherwise_than_it_says(url, tmp_path, phases):
    """By night also with every boundary of every field, one after the other."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{url}/openapi.json"]
    options = ["--no-color", "--phases", phases, "--header", f"X-API-Key: {KEY}"]
    ran = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
