"""What `farm` is made of: progress in words, names of files, logs, signals, processes that start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from cli import doctor, farm, logs, parts, render, terminal
from cli.embedded.process import Server
from cli.interrupts import caught, to_stop
from cli.jobs import describe, in_the_queue, status, undone
from cli.parts import Part
from client.client import Client
from shared.errors import FarmError, LauncherError, NotFound, Refused, SettingsError
from shared.settings import Settings
from shared.waiting.backoff import Backoff
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


def job(*images: dict[str, Any], state: str = "running", position: int | None = None) -> dict[str, Any]:
    counts = Counter(one["state"] for one in images)
    return {
        "id": 17,
        "state": state,
        "position": position,
        "counts": counts,
        "images": list(images),
        "links": {"page": "/jobs/17"},
    }


def image(state: str = "running", step: int = 0, phase: str = "", index: int = 0) -> dict[str, Any]:
    links = {"picture": f"/api/v1/jobs/17/images/{index}/picture.png"}
    return {
        "index": index,
        "state": state,
        "step": step,
        "steps": 20,
        "phase": phase,
        "seed": 7 + index,
        "links": links,
    }


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (job(image("queued"), state="queued", position=3), "queued, 3 ahead"),
        (job(image("queued"), state="queued", position=0), "queued"),
        (job(image(phase="loading checkpoint scenes, about 3 s")), "loading checkpoint scenes, about 3 s"),
        (job(image()), "starting"),
        (job(image(step=8, phase="steps")), "step 8 of 20"),
        (
            job(image("succeeded"), image(step=20, phase="the storage takes no pictures: the disk is full")),
            "1 of 2 pictures, the storage takes no pictures: the disk is full",
        ),
        (job(image("succeeded"), image(step=2)), "1 of 2 pictures, step 2 of 20"),
        (job(image("succeeded"), state="succeeded"), "succeeded"),
    ],
)
def test_progress_in_words(told: dict[str, Any], words: str):
    assert describe(told) == words


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, ""),
        ({"pool": "default", "priority": 0, "urgent": False}, ""),
        ({"pool": "large", "priority": -5, "urgent": True}, "urgent, pool large, priority -5"),
    ],
)
def test_status_tells_of_a_place_in_the_queue_that_is_not_as_usual(said: dict[str, Any], words: str):
    assert in_the_queue(said) == words


def test_status_is_silent_about_chores_that_are_done():
    assert undone({"is_anybody": True, "overdue": []}) == []


def test_status_tells_of_chores_that_are_not_done():
    earlier = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    overdue = [{"name": "history", "done_at": earlier}, {"name": "litter", "done_at": None}]
    assert undone({"is_anybody": False, "overdue": overdue}) == [
        "No process does the farm's chores: nothing is cleaned up until `farm chores` runs.",
        "Chores overdue: history (last done 3 d ago), litter (never done). `farm logs chores` may say why.",
    ]


def farm_of(bodies: dict[str, Any]) -> Client:
    """A client of a farm that answers with `bodies`, by the last word of their paths."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = bodies.get(request.url.path.rpartition("/")[2])
        return (
            httpx.Response(404, json={"detail": "There is nothing here."})
            if body is None
            else httpx.Response(200, json=body)
        )

    return Client("http://127.0.0.1:9", transport=httpx.MockTransport(answer))


def test_status_of_the_farm_holds_its_chores(capsys):
    undone_ones = {"is_anybody": False, "overdue": []}
    client = farm_of({"workers": {"workers": []}, "jobs": {"jobs": []}, "chores": undone_ones})
    status(client, None, as_json=False)
    assert "No process does the farm's chores" in capsys.readouterr().out
    status(client, None, as_json=True)
    assert json.loads(capsys.readouterr().out)["chores"] == undone_ones


def test_status_works_with_an_api_that_tells_nothing_of_chores(capsys):
    client = farm_of({"workers": {"workers": []}, "jobs": {"jobs": []}})
    status(client, None, as_json=False)
    assert "chores" not in capsys.readouterr().out
    status(client, None, as_json=True)
    assert json.loads(capsys.readouterr().out)["chores"] is None


def test_progress_in_a_log_is_a_line_at_each_quarter(capsys: pytest.CaptureFixture[str]):
    show = render._lines()
    for step in range(21):
        show(job(image(step=step)) | {"progress": step / 20})
    assert capsys.readouterr().err.splitlines() == [
        "  0%  starting",
        " 25%  step 5 of 20",
        " 50%  step 10 of 20",
        " 75%  step 15 of 20",
        "100%  step 20 of 20",
    ]


def test_a_job_that_waits_says_why_once_for_each_reason(capsys: pytest.CaptureFixture[str]):
    tell = render._reasons()
    drained = {"code": "drained", "text": "vm/cpu:0 takes nothing new: new card."}
    told = [{"code": "next", "text": "It is next."}, drained, drained, None, {"code": "slot", "text": "All are full."}]
    for waiting in told:
        tell({"waiting": waiting})
    tell({})  # of an API of an older version
    assert capsys.readouterr().err.splitlines() == [drained["text"], "All are full."]


def picture_client(data: bytes = b"png") -> Client:
    return Client("http://127.0.0.1:1", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=data)))


def test_saved_picture_never_overwrites(tmp_path: Path):
    names = [render.save(picture_client(), job(), image(), tmp_path).name for _ in range(3)]
    assert names == ["00017-0-seed7.png", "00017-0-seed7-2.png", "00017-0-seed7-3.png"]


def test_folder_that_is_gone_is_told_with_where_the_picture_is(tmp_path: Path):
    with pytest.raises(FarmError, match=r"--out.*/jobs/17"):
        render.save(picture_client(), job(), image(), tmp_path / "gone")


@pytest.fixture
def log_folder(tmp_path: Path) -> Path:
    (tmp_path / "api.log").write_text("one\ntwo\nthree\n")
    (tmp_path / "workers.log").write_text("four\n")
    return tmp_path


def test_logs_name_their_part(log_folder: Path, capsys: pytest.CaptureFixture[str]):
    logs.show(log_folder, (), lines=2, follow=False, as_json=False)
    assert capsys.readouterr().out.splitlines() == ["api     │ two", "api     │ three", "workers │ four"]


def test_log_of_one_part(log_folder: Path, capsys: pytest.CaptureFixture[str]):
    logs.show(log_folder, ("workers",), lines=9, follow=False, as_json=True)
    assert capsys.readouterr().out == '{"part": "workers", "line": "four"}\n'


def test_log_of_an_unknown_part_names_those_there_are(log_folder: Path):
    with pytest.raises(NotFound, match="There are logs of api, workers"):
        logs.show(log_folder, ("gpu",), lines=9, follow=False, as_json=False)


def test_log_is_read_on_from_whole_lines(tmp_path: Path):
    path = tmp_path / "api.log"
    path.write_text("one\ntw")
    log = logs.LogFile(path)
    assert list(log.new_lines()) == ["one"]
    path.write_text("one\ntwo\n")
    assert list(log.new_lines()) == ["two"]
    path.write_text("new\n")
    assert list(log.new_lines()) == ["new"]


def test_log_that_is_put_aside_is_read_on_in_the_next_one(tmp_path: Path):
    path = tmp_path / "api.log"
    path.write_text("one\n")
    log = logs.LogFile(path)
    assert list(log.new_lines()) == ["one"]
    path.replace(tmp_path / "api.log.1")
    assert list(log.new_lines()) == []
    path.write_text("two, longer than one\n")
    assert list(log.new_lines()) == ["two, longer than one"]


def test_large_log_is_put_aside_while_its_process_goes_on_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "_LONGEST_LOG_BYTES", 3)
    (tmp_path / "workers.log").write_text("3\n")
    with (tmp_path / "api.log").open("ab", buffering=0) as log:
        for number in range(6):
            log.write(f"line {number}\n".encode())
            parts.rotate_logs(tmp_path)
        log.write(b"6\n")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {
        "api.log": "6\n",
        "api.log.1": "line 5\n",
        "api.log.2": "line 4\n",
        "api.log.3": "line 3\n",
        "workers.log": "3\n",
    }


def test_large_log_is_cut_even_where_no_copy_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "_LONGEST_LOG_BYTES", 3)
    (tmp_path / "api.log").write_text("line\n")
    monkeypatch.setattr(parts.shutil, "copyfile", Mock(side_effect=OSError(28, "No space left on device")))
    parts.rotate_logs(tmp_path)
    assert (tmp_path / "api.log").read_text() == ""


def test_last_lines_are_found_after_the_log_was_put_aside(part: Part):
    part.server.log.write_text("")
    part.server._log_start = 1000
    part.server.log.write_text("one\ntwo\n")
    assert part.server.tail() == "one\ntwo"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_is_a_request_to_stop(number: signal.Signals):
    with to_stop() as signals:
        assert signals.wait(0) is None
        os.kill(os.getpid(), number)
        assert signals.wait(5) == number


def test_signals_do_again_what_they_did_before():
    before = signal.getsignal(signal.SIGTERM)
    with caught(lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("heard", ["caught(raise_interrupt)", "to_stop()"])
def test_what_is_ignored_stays_ignored(heard: str):
    code = f"""
import os, signal
from cli.interrupts import caught, raise_interrupt, to_stop
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with {heard} as signals:
    os.kill(os.getpid(), signal.SIGHUP)
    assert signals is None or signals.wait(0) is None
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def part(tmp_path: Path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    made = Part(Server("part", command, tmp_path, tmp_path / "log", lambda: True, ((signal.SIGTERM, 5.0),)))
    made.start()
    yield made
    made.server.stop()


def kill(part: Part) -> None:
    os.kill(part.server.pid or 0, signal.SIGKILL)
    until(lambda: not part.server.alive, what="the process's end")


def test_part_that_lives_is_left_alone(part: Part):
    assert not part.tend()


def test_part_that_died_starts_again_at_once(part: Part):
    kill(part)
    assert part.tend()
    assert part.server.alive


def test_part_that_keeps_dying_has_to_wait(part: Part):
    kill(part)
    part.tend()
    kill(part)
    assert not part.tend()


def test_hurried_part_is_asked_again(tmp_path: Path):
    code = """
import pathlib, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pathlib.Path("ready").touch()
for _ in range(2):
    signal.sigwait([signal.SIGTERM])
    pathlib.Path("asked").touch()
"""
    command = [sys.executable, "-c", code]
    stubborn = Part(Server("part", command, tmp_path, tmp_path / "log", lambda: True, ((signal.SIGTERM, 60.0),)))
    stubborn.start()
    until((tmp_path / "ready").exists)
    with ThreadPoolExecutor(1) as stopping:
        stopped = stopping.submit(stubborn.server.stop)
        until((tmp_path / "asked").exists)
        stubborn.hurry()
        stopped.result(20)
    assert not stubborn.server.alive


def test_folder_of_the_command_line_is_not_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "api.py").write_text("raise SystemExit(9)")
    ours = parts.environment() | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-m", "cli", "--help"], env=ours, check=False).returncode == 0


def test_taken_port_is_passed_by():
    told: list[str] = []
    with create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        settings = Settings.model_construct(_fields_set=set(), port=taken)
        with farm.listen_somewhere(settings, told.append) as listener:
            assert listener.getsockname()[1] not in {0, taken}
    assert str(taken) in told[0]


def test_taken_port_that_was_asked_for_is_an_error():
    with create_server(("127.0.0.1", 0)) as other, pytest.raises(SettingsError, match="FARM_PORT"):
        farm.listen_somewhere(Settings(port=other.getsockname()[1]), lambda _: None)


def test_doctor_points_out_a_misspelt_variable():
    finding = doctor.check_settings({"FARM_PROT": "80", "FARM_HOME": "/tmp", "HOME": "/root"})
    assert finding.level == "note"
    assert "FARM_PROT is not a setting; did you mean FARM_PORT?" in finding.text


def test_doctor_refuses_an_unknown_check():
    with pytest.raises(Refused) as refusal:
        doctor.examine({}, ["tourch"], as_json=False)
    assert "torch" in refusal.value.fields[0].accepted


def test_doctor_names_a_setting_that_cannot_be_used(capsys: pytest.CaptureFixture[str]):
    assert doctor.examine({"FARM_PORT": "eighty"}, [], as_json=False) == 1
    assert "FARM_PORT='eighty'" in capsys.readouterr().out


def test_doctor_leaves_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    home = tmp_path / "home"
    checks = ["home", "disk", "database", "migrations", "redis", "storage", "api", "workers", "chores", "events"]
    assert doctor.examine({"FARM_HOME": str(home)}, checks, as_json=True) == 0
    assert not home.exists()


def test_doctor_sees_an_open_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tmp_path.chmod(0o755)
    assert doctor.examine({"FARM_HOME": str(tmp_path)}, ["home"], as_json=False) == 1
    assert f"chmod 700 {tmp_path}" in capsys.readouterr().out


def test_markup_in_a_prompt_is_text():
    assert terminal.shorten("a [bold]cat[/] and more", 12) == r"a \[bold]cat…"


class Servers:
    """Servers that fail twice, each time with another log, before they start again."""

    def __init__(self) -> None:
        self.answers = [LauncherError("No Redis:\n10:01"), LauncherError("No Redis:\n10:02"), ["Redis"]]

    def tend(self) -> list[str]:
        answer = self.answers.pop(0)
        if isinstance(answer, LauncherError):
            raise answer
        return answer


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def kept(told: list[str], monkeypatch: pytest.MonkeyPatch) -> farm.Farm:
    made = farm.Farm(Settings(), told.append)
    monkeypatch.setattr(made, "_servers", Servers(), raising=False)
    return made


def test_a_server_that_cannot_start_again_is_reported_once(kept: farm.Farm, told: list[str]):
    kept._backoff = Backoff(0.0, 0.0)
    for _ in range(3):
        kept._tend()
    assert told == ["No Redis:\n10:01 Trying again.", "Redis died; started again."]


def test_a_server_that_cannot_start_again_is_not_tried_every_turn(kept: farm.Farm):
    for _ in range(3):
        kept._tend()
    assert len(kept._servers.answers) == 2


def test_part_that_cannot_start_again_ends_nothing(part: Part, kept: farm.Farm, told: list[str]):
    kept._parts = (part,)
    part.server.log = part.server.log / "no folder"
    kill(part)
    for _ in range(3):
        kept._tend()
    assert [line.partition(":")[0] for line in told] == ["No Redis", "The part could not be started"]
