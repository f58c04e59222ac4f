"""What the API says about itself against what it does: schemathesis makes right and wrong requests of the document."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from flask import Flask, Response, request
from werkzeug.serving import make_server

from api.services import EXTENSION
from shared.accounts import keys
from shared.accounts.principal import LOCAL, Role
from shared.db.sessions import transact
from tests.support.applications import application
from tests.support.furnished import furnish
from tests.support.instant_worker import picture

KEY = "a-key-of-the-fuzzer"
OWNER = "fuzzer"
DATA = Path(__file__).parents[1] / "data"
CONFIG = DATA / "schemathesis.toml"
FURNISHED = DATA / "schemathesis-furnished.toml"
ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 0.05
HOUR = 3600
SECONDS = {Role.VIEWER: HOUR // 10, Role.USER: HOUR // 5, Role.OPERATOR: HOUR // 10, Role.ADMIN: HOUR * 3 // 5}
WAITS = ["--exclude-path-regex", "^/v1/images/|^/sdapi/v1/(txt2img|img2img|extra-)"]
"""Requests that wait for pictures."""
LASTING = {"/api/v1/events", "/api/v1/jobs/{job_id}/events", "/replicate/v1/predictions/{job_id}/stream"}
"""Routes that are not asked, since their answers last."""
REFUSING = {
    "POST /sdapi/v1/interrogate",  # no farm describes pictures
    # These need two or three things at once, which not every night brings together.
    "GET /api/v1/webhooks/deliveries/{delivery_id}",
    "PATCH /api/v1/jobs/{job_id}",
    "POST /api/v1/controlnet/preview",
    "POST /api/v1/jobs/{job_id}/approve",
    "POST /api/v1/jobs/{job_id}/images/{index}/cancel",
    "POST /api/v1/jobs/{job_id}/release",
    "POST /api/v1/queue/{job_id}/cancel",
    "POST /api/v1/queue/{job_id}/hold",
    "POST /api/v1/queue/{job_id}/release",
    "POST /api/v1/workers/{name}/drain",
    "POST /sdapi/v1/extra-batch-images",
    "POST /sdapi/v1/extra-single-image",
    "POST /sdapi/v1/img2img",
    "POST /v1/images/edits",
}
"""Routes that may answer with nothing but 4xx."""


@contextmanager
def _application(home: Path, folder: Path) -> Iterator[Flask]:
    """Yield an application whose admin has a key of a setting, which nobody can revoke."""
    named = {"api_keys": {KEY: OWNER}, "admins": OWNER}
    with application(home, folder, port=0, requests_per_minute=0, door_seconds=WAIT_SECONDS, **named) as app:
        yield app


@contextmanager
def _served(app: Flask) -> Iterator[str]:
    """Yield a socket of the application's: schemathesis is another process, whose pytest plugin no test has to bear."""
    app.test_client().get("/openapi.json")  # made once; on a busy machine that takes longer than its reader waits
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_nothing_that_the_document_allows_or_forbids_is_answered_otherwise_than_it_says(home, tmp_path):
    """Nobody renders here, so no request waits long for pictures."""
    with _application(home, tmp_path) as app, _served(app) as url:
        _fuzz(url, tmp_path, "--phases", "fuzzing,stateful", "--max-examples", "4", *WAITS, seconds=600)


@pytest.mark.nightly
@pytest.mark.timeout(2 * HOUR)
def test_in_an_hour_no_role_gets_another_answer_than_the_document_says_and_each_route_is_reached(home, tmp_path):
    """Also at the doors that wait for pictures, which a worker paints at once."""
    with _application(home, tmp_path) as app:
        answers = _counted(app)
        config = _config(tmp_path, upload=furnish(app, {"X-API-Key": KEY}, tmp_path))
        with _served(app) as url:
            for role, seconds in SECONDS.items():
                # A key that may revoke keys would revoke itself.
                kept = ["--exclude-path", "/api/v1/keys/{key_id}"] if role is not Role.ADMIN else []
                options = ["--max-time", str(seconds), *kept]
                _fuzz(url, tmp_path, *options, seconds=seconds + 900, key=_key(app, role), config=config)
            document = app.test_client().get("/openapi.json").get_json()
    routes = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    wanted = {f"{method} {path}" for method, path in routes if path not in LASTING}
    assert {route for route in wanted if not answers[route]} == set()
    assert {route for route in wanted if min(answers[route]) >= 400} <= REFUSING


def _config(folder: Path, upload: str) -> Path:
    """Write how the furnished farm is asked."""
    values = {
        "@PNG@": base64.b64encode(picture()).decode(),
        "@SHA256@": hashlib.sha256(b"demo").hexdigest(),
        "@UPLOAD@": upload,
    }
    text = "\n".join(file.read_text("utf-8") for file in (CONFIG, FURNISHED))
    for name, value in values.items():
        text = text.replace(name, value)
    made = folder / "schemathesis.toml"
    made.write_text(text, "utf-8")
    return made


def _counted(app: Flask) -> defaultdict[str, set[int]]:
    """Return the statuses that each route of the document answers with from now on."""
    answers = defaultdict[str, set[int]](set)

    @app.after_request
    def count(answer: Response) -> Response:
        if request.url_rule is not None:
            path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", request.url_rule.rule)
            answers[f"{request.method} {path}"].add(answer.status_code)
        return answer

    return answers


def _key(app: Flask, role: Role) -> str:
    if role is Role.ADMIN:
        return KEY
    wanted = keys.NewKey(OWNER, role, "of a test")
    sessions = app.extensions[EXTENSION].sessions
    return transact(sessions, lambda session: keys.create(session, wanted, LOCAL, others=True)).key


def _fuzz(url: str, folder: Path, *options: str, seconds: int, key: str = KEY, config: Path = CONFIG) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}/openapi.json"]
    given = ["--no-color", "--header", f"X-API-Key: {key}", *options]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.support.fuzz_hooks"}
    ran = subprocess.run(
        [*command, *given], cwd=folder, env=environ, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
