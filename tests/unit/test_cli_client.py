"""The client of the API: its requests, its reading of answers, and how it follows a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli import checkpoints, jobs, main
from cli.connect import connect
from cli.embedded import home
from cli.embedded.home import Record
from client import connection, errors
from client.calls import jobs as calls
from client.client import Client
from shared.errors import NotRunning, SettingsError
from shared.models.folders import ModelFolders
from shared.settings import Settings

Handler = Callable[[httpx.Request], httpx.Response]
URL = "http://127.0.0.1:8321"


def answering(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """A client whose requests are kept and get these answers in turn."""
    asked: list[httpx.Request] = []
    rest = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        following = next(rest)
        if isinstance(following, Exception):
            raise following
        return following

    return Client(URL, "secret-key", httpx.MockTransport(answer), patience_seconds=0), asked


def problem(status: int, detail: str = "No.", **more: Any) -> httpx.Response:
    body = {"type": "about:blank", "title": "", "status": status, "detail": detail, "errors": []} | more
    return httpx.Response(status, json=body)


def job(state: str = "running", progress: float = 0.0) -> httpx.Response:
    links = {"events": "/api/v1/jobs/17/events", "page": "/jobs/17"}
    return httpx.Response(200, json={"id": 17, "state": state, "progress": progress, "links": links})


def stream(*events: str) -> httpx.Response:
    text = "".join(f"event: {kind}\ndata: {{}}\n\n" for kind in events)
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calls, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(connection, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(checkpoints, "_PAUSE_SECONDS", 0.001)


@pytest.fixture
def farm_home(tmp_path: Path) -> Iterator[Path]:
    with home.claim_home(tmp_path):
        yield tmp_path


def test_submit_shows_the_key_and_can_be_repeated():
    client, asked = answering(job())
    client.submit({"prompt": "sea"}, "key-1")
    assert asked[0].url.path == "/api/v1/jobs"
    assert asked[0].headers["Authorization"] == "Bearer secret-key"
    assert asked[0].headers["Idempotency-Key"] == "key-1"


@pytest.mark.parametrize("move", ["hold", "release"])
def test_job_is_held_and_released_by_its_number(move: str, capsys: pytest.CaptureFixture[str]):
    client, asked = answering(httpx.Response(200, json={"images": 2, "job": {"id": 17}}))
    getattr(jobs, move)(client, 17, as_json=False)
    assert (asked[0].method, asked[0].url.path) == ("POST", f"/api/v1/jobs/17/{move}")
    assert capsys.readouterr().out == f"job 17: 2 pictures {'held' if move == 'hold' else 'released'}\n"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.TooLarge),
        (422, errors.Refused),
        (503, errors.Unavailable),
        (500, errors.FarmError),
    ],
)
def test_problem_becomes_the_error_that_it_was(status: int, kind: type[errors.FarmError]):
    client, _ = answering(problem(status, "Because."))
    with pytest.raises(errors.FarmError, match=r"Because\.") as caught:
        client.job(17)
    assert type(caught.value) is kind


def test_refusal_keeps_every_field():
    fields = [{"field": "steps", "message": "is 0", "accepted": "1 to 150"}]
    client, _ = answering(problem(422, errors=fields))
    with pytest.raises(errors.Refused) as caught:
        client.submit({}, "key")
    assert caught.value.fields == (errors.FieldError("steps", "is 0", "1 to 150"),)


@pytest.mark.parametrize(
    "body", [{"detail": "No."}, {"detail": "No.", "errors": 5}, {"detail": "No.", "errors": ["x"]}]
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_refusal_of_another_program_has_no_fields(status: int, body: dict[str, Any]):
    client, _ = answering(httpx.Response(status, json=body))
    with pytest.raises(errors.Refused, match=r"No\.") as caught:
        client.render({})
    assert caught.value.fields == ()


def test_refusal_may_say_less_of_a_field():
    client, _ = answering(httpx.Response(422, json={"detail": "No.", "errors": [{"field": "steps", "code": 7}]}))
    with pytest.raises(errors.Refused) as caught:
        client.render({})
    assert caught.value.fields == (errors.FieldError("steps", "", ""),)


def test_wrong_key_says_which_variable_to_set():
    client, _ = answering(problem(401))
    with pytest.raises(errors.Unauthorized, match="FARM_API_KEY"):
        client.jobs()


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(502, text="<html>"), httpx.Response(200, text="<html>"), httpx.Response(200, json=["hello"])],
    ids=["a proxy", "a page", "a list"],
)
def test_answer_of_something_else_is_told(answer: httpx.Response):
    client, _ = answering(answer)
    with pytest.raises(errors.FarmError, match="FARM_URL"):
        client.job(17)


def test_nobody_there_says_how_to_start_a_farm():
    client, _ = answering(httpx.ConnectError("Connection refused"))
    with pytest.raises(errors.NotRunning, match=r"Connection refused.*make up"):
        client.job(17)


def test_farm_of_the_home_is_found(farm_home: Path):
    home.write_record(farm_home, Record(URL, os.getpid(), "2026-01-01T00:00:00+00:00"))
    assert connect(Settings(home=farm_home)).url == URL


def test_url_wins_over_the_home(farm_home: Path):
    home.write_record(farm_home, Record(URL, os.getpid(), "2026-01-01T00:00:00+00:00"))
    assert connect(Settings(home=farm_home, url="https://farm.example/")).url == "https://farm.example"


def test_record_of_a_farm_that_is_gone_is_not_believed(tmp_path: Path):
    home.write_record(tmp_path, Record(URL, 1, "2026-01-01T00:00:00+00:00"))
    with pytest.raises(NotRunning, match="make up"):
        connect(Settings(home=tmp_path))


def test_farm_that_is_not_up_yet_is_told_apart(farm_home: Path):
    with pytest.raises(NotRunning, match="starting or stopping"):
        connect(Settings(home=farm_home))


def test_watch_looks_at_events_and_ends_with_the_job():
    client, asked = answering(job(), stream("state", "state", "state"), job(progress=0.5), job("succeeded", 1))
    assert [seen["progress"] for seen in client.watch(17)] == [0, 0.5, 1]
    assert [request.url.path for request in asked].count("/api/v1/jobs/17/events") == 1


def test_watch_leaves_out_progress_that_comes_too_soon():
    client, _ = answering(job(), stream(*["progress"] * 50, "state"), job(progress=0.5), job("succeeded", 1))
    assert len(list(client.watch(17))) == 3


@pytest.mark.parametrize("refusal", [problem(503), problem(429), httpx.ReadError("gone")])
def test_watch_polls_where_there_is_no_stream(refusal: httpx.Response | Exception):
    client, _ = answering(job(), refusal, job(progress=0.5), refusal, job("failed", 1))
    assert [seen["state"] for seen in client.watch(17)] == ["running", "running", "failed"]


def test_watch_waits_for_an_api_that_is_started_again():
    away = httpx.ConnectError("Connection refused")
    client, _ = answering(job(), away, away, problem(503), job("succeeded", 1))
    assert [seen["state"] for seen in client.watch(17)] == ["running", "succeeded"]


def test_watch_gives_up_on_an_api_that_stays_away(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calls, "PATIENCE_SECONDS", 0)
    client, _ = answering(job(), httpx.ConnectError("gone"), httpx.ConnectError("gone"))
    with pytest.raises(errors.NotRunning):
        list(client.watch(17))


def test_address_that_no_host_can_have_is_told_by_its_variable():
    with pytest.raises(SettingsError, match="FARM_URL"):
        connect(Settings(url="http://1.2.3.999"))


def catalogue(*paths: str) -> list[httpx.Response]:
    """What a farm answers when it is asked for its model files, with two of them on a page."""
    pages = [paths[first : first + 2] for first in range(0, len(paths), 2)] or [()]
    return [
        httpx.Response(
            200, json={"models": [{"path": path} for path in page], "next": 2 * number if number < len(pages) else None}
        )
        for number, page in enumerate(pages, 1)
    ]


def test_first_scan_is_waited_for(tmp_path: Path):
    (tmp_path / "demo.safetensors").touch()
    (tmp_path / "demo.vae.pt").touch()
    (tmp_path / "taesd_decoder.safetensors").touch()
    all_three = ("demo.safetensors", "demo.vae.pt", "taesd_decoder.safetensors")
    client, asked = answering(*(answer for known in range(4) for answer in catalogue(*all_three[:known])))
    checkpoints.await_first(client, Settings(models=tmp_path))
    assert [one.url.params.get("cursor") for one in asked] == [None, None, None, None, "2"]


def test_checkpoint_that_is_new_is_waited_for_beside_those_of_earlier_runs(tmp_path: Path):
    models, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    models.mkdir()
    elsewhere.mkdir()
    (models / "demo.safetensors").touch()
    (elsewhere / "MINE.CKPT").touch()
    (models / "linked").symlink_to(elsewhere)
    client, asked = answering(*catalogue("demo.safetensors"), *catalogue("linked/MINE.CKPT", "demo.safetensors"))
    checkpoints.await_first(client, Settings(models=models))
    assert len(asked) == 2


def test_what_cannot_be_read_is_not_waited_for(tmp_path: Path):
    (tmp_path / "away.safetensors").symlink_to(tmp_path / "unplugged")
    client, asked = answering()
    checkpoints.await_first(client, Settings(models=tmp_path))
    assert asked == []


def test_models_folder_that_is_not_there_holds_nothing(tmp_path: Path):
    assert checkpoints.files(ModelFolders((tmp_path / "models",))) == []


def test_nothing_is_waited_for_in_an_empty_models_folder(tmp_path: Path):
    client, asked = answering()
    checkpoints.await_first(client, Settings(models=tmp_path))
    assert asked == []


def test_pictures_of_seed_0_are_asked_for_as_those_of_any_other(monkeypatch: pytest.MonkeyPatch):
    client, asked = answering(httpx.Response(200, json={"pictures": [], "next": None}))
    monkeypatch.setattr("cli.connect.connect", lambda _: client)
    CliRunner().invoke(main.app, ["pictures", "--seed", "0"], catch_exceptions=False)
    assert dict(asked[0].url.params) == {"seed": "0", "limit": "20"}


def test_pictures_of_everybody_are_listed_with_their_owners(monkeypatch: pytest.MonkeyPatch):
    params = {"seed": 1, "width": 64, "height": 64, "prompt": "sea"}
    marks = {"favourite": False, "tags": []}
    picture = {"id": "3.0", "owner": "bob", "ended_at": "2026-11-30T12:00:00Z", "params": params, **marks}
    client, asked = answering(httpx.Response(200, json={"pictures": [picture], "next": None}))
    monkeypatch.setattr("cli.connect.connect", lambda _: client)
    shown = CliRunner().invoke(main.app, ["pictures", "--owner", "*"], catch_exceptions=False).output
    assert asked[0].url.params["owner"] == "*"
    assert shown.split()[:2] == ["owner", "picture"]
    assert "bob" in shown


def test_workers_are_drained_by_their_names_and_patterns():
    client, asked = answering(*[httpx.Response(200, json={"workers": []})] * 3)
    client.drain("host/cuda:0", "new fan")
    client.drain("host/*", "")
    client.resume("*")
    assert [request.url.raw_path for request in asked] == [
        b"/api/v1/workers/host/cuda%3A0/drain?reason=new+fan",
        b"/api/v1/workers/host/%2A/drain",
        b"/api/v1/workers/%2A/resume",
    ]
