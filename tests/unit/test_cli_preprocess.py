"""`farm preprocess`: what it asks the farm, what it writes, and how it names what was refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli import main, preprocess
from client.client import Client
from client.errors import Refused

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs the command in a folder with the file `sea.jpg`, at a farm that answers as the function given says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sea.jpg").write_bytes(b"waves")

    def invoke(answer: Answer, *options: str) -> Result:
        client = Client("http://farm", transport=httpx.MockTransport(answer))
        monkeypatch.setattr(preprocess, "connect", lambda _: client)
        return CliRunner().invoke(main.app, ["preprocess", "sea.jpg", *options])

    return invoke


def test_the_picture_goes_along_and_the_answer_is_written(run: Callable[..., Result], tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        asked.update(json.loads(request.content), path=request.url.path)
        return httpx.Response(200, content=b"png")

    options = ["--preprocessor", "canny", "--threshold-a", "60", "--width", "512", "-o", "edges.png"]
    done = run(answer, *options)
    assert (done.exit_code, done.stdout.strip()) == (0, "edges.png")
    assert (tmp_path / "edges.png").read_bytes() == b"png"
    picture = f"data:;base64,{base64.b64encode(b'waves').decode()}"
    unit = {"model": "", "picture": picture, "preprocessor": "canny", "threshold_a": 60}
    assert asked == {"path": "/api/v1/controlnet/preview", "width": 512, "controlnet": [unit]}


def test_without_a_name_it_is_called_by_picture_and_preprocessor(run: Callable[..., Result], tmp_path: Path) -> None:
    done = run(lambda _: httpx.Response(200, content=b"png"), "--preprocessor", "grey", "--json")
    assert json.loads(done.stdout) == {"file": str(tmp_path / "sea-grey.png")}


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("controlnet.0.threshold_a", "--threshold-a"),
        ("controlnet.0.preprocessor", "--preprocessor"),
        ("controlnet.0.picture", "sea.jpg"),
        ("checkpoint", "--checkpoint"),
    ],
)
def test_a_refusal_names_what_was_typed(run: Callable[..., Result], tmp_path: Path, field: str, named: str) -> None:
    problem = {"detail": "no", "errors": [{"field": field, "message": "is wrong", "accepted": "another"}]}
    done = run(lambda _: httpx.Response(422, json=problem), "--preprocessor", "blur")
    assert isinstance(done.exception, Refused)
    assert [(one.field, one.message) for one in done.exception.fields] == [(named, "is wrong")]
    assert not (tmp_path / "sea-blur.png").exists()


def test_a_file_that_cannot_be_written_is_named(run: Callable[..., Result]) -> None:
    done = run(lambda _: httpx.Response(200, content=b"png"), "--preprocessor", "blur", "-o", "no/edges.png")
    assert "no/edges.png cannot be written" in str(done.exception)
