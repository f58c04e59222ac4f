"""Where the command line ends: full disks, readers that have gone, terminals that cannot show or must not obey."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import error_boundary, terminal, up
from cli.embedded import home
from cli.parts import environment
from cli.terminal import Terminal
from client.client import Client
from client.errors import UnusableAddress
from shared import embedded_addresses
from shared.errors import FarmError, LauncherError, NotRunning
from shared.settings import Settings
from tests.support.servers import clean_environment

EVIL = "sea\x1b]0;PWNED\x07\x1b[31m \x9b2J\u202egnp\u2066\r\x00\x7f\ud800 ü✓\U000e0041"
CLEAN = "sea]0;PWNED[31m 2Jgnp ü✓"


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, str]:
    """The environment of a farm that has logged a line."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "api.log").write_text("ü✓ 画\n", encoding="utf-8")
    return clean_environment() | {"FARM_HOME": str(tmp_path)}


def farm(*arguments: str, env: dict[str, str], **streams: object) -> subprocess.CompletedProcess[bytes]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    command = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(command, env=env, timeout=60, check=False, **given)  # type: ignore[call-overload]


@pytest.mark.parametrize("arguments", [["logs"], ["logs", "--json"]])
def test_a_full_disk_is_told_with_its_status(logs, arguments):
    with Path("/dev/full").open("wb") as full:
        answer = farm(*arguments, env=logs, stdout=full)
    assert (answer.returncode, b"No space left on device" in answer.stderr) == (1, True)
    assert b"Traceback" not in answer.stderr
    assert b"Exception ignored" not in answer.stderr


def test_a_reader_that_has_gone_is_no_error_to_tell_of(logs):
    reader, writer = os.pipe()
    os.close(reader)
    answer = farm("logs", env=logs, stdout=writer)
    os.close(writer)
    assert (answer.returncode, answer.stderr) == (1, b"")


@pytest.mark.parametrize("stderr", ["/dev/full", "gone"])
def test_an_error_that_nobody_can_read_is_told_by_the_status(logs, stderr):
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("wb") as full:
        answer = farm("status", env=logs, stderr=full if stderr == "/dev/full" else writer)
    os.close(writer)
    assert (answer.returncode, answer.stdout) == (1, b"")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "?? ?"), ("latin-1", "ü? ?"), ("utf-8", "ü✓ 画")])
def test_what_the_terminal_cannot_show_is_replaced(logs, encoding, shown):
    answer = farm("logs", env=logs | {"PYTHONIOENCODING": encoding})
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert answer.stdout.decode(encoding).endswith(f" {shown}\n")


def test_what_nobody_expected_is_named_with_its_place(capsys):
    assert error_boundary.run(lambda: 1 / 0, as_json=False) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in " ".join(told.split())
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FarmError("No."), "No."),
        (OSError(30, "Read-only file system", "/x/lock"), "/x/lock: Read-only file system."),
        (PermissionError(13, "Permission denied", "/x/logs"), "/x/logs: Permission denied."),
        (OSError("odd"), "odd."),
    ],
)
def test_errors_are_sentences(capsys, error, told):
    def fail() -> None:
        raise error

    assert error_boundary.run(fail, as_json=False) == 1
    assert capsys.readouterr().err == f"{told}\n"


@pytest.mark.parametrize("line", ["logs >&-", "logs --json >&-", "status --json 2>&-", "logs >&- 2>&- <&-"])
def test_closed_streams_are_no_error(logs, line):
    command = ["bash", "-c", f'exec "$0" -m cli {line}', sys.executable]
    answer = subprocess.run(command, env=logs, capture_output=True, timeout=60, check=False)
    assert answer.returncode == int(line.startswith("status"))
    assert b"Traceback" not in answer.stderr
    assert b"fault" not in answer.stderr


def test_bytes_that_are_no_text_are_told(capsys):
    assert error_boundary.run("sea\udcff".encode, as_json=True) == 1
    assert "is not UTF-8 text." in capsys.readouterr().err


@pytest.mark.parametrize(("code", "status"), [(0, 0), (2, 2), (None, 0), ("words", 1)])
def test_statuses_pass(code, status):
    assert error_boundary.run(lambda: sys.exit(code), as_json=False) == status


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "odd://x", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_told(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UnusableAddress, match="ALL_PROXY"):
        Client("http://192.0.2.1:8321")
    Client("http://127.0.0.1:8321")


def test_a_home_that_cannot_be_written_is_told():
    with pytest.raises(LauncherError, match=r"/proc cannot be written \("), home.claim_home(Path("/proc")):
        pass


def test_another_users_home_is_told_as_such(monkeypatch, tmp_path):
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(NotRunning, match=r"is another user's \(Permission denied\)"):
        home.running(tmp_path)
    monkeypatch.setattr(home, "running", lambda _: True)
    with pytest.raises(NotRunning, match=r"is another user's \(Permission denied\)"):
        home.read_record(tmp_path)
    with pytest.raises(LauncherError, match=r"cannot be written \(Permission denied\)"), home.claim_home(tmp_path):
        pass


def test_sockets_of_a_home_with_a_comma_lie_elsewhere():
    folder = embedded_addresses.socket_folder(Path("/x/a,b"))
    assert "," not in str(folder)
    assert folder != embedded_addresses.socket_folder(Path("/x/a,c"))


@pytest.fixture
def console() -> Terminal:
    return Terminal(file=io.StringIO(), force_terminal=True, highlight=False, soft_wrap=True)


def test_texts_of_others_do_not_control_the_terminal(console, monkeypatch):
    monkeypatch.setattr(terminal, "out", console)
    monkeypatch.setattr(terminal, "err", console)
    terminal.answer(EVIL)
    terminal.table(("a",), [(terminal.shorten(EVIL),)], "")
    terminal.progress(EVIL)
    terminal.warn(EVIL)
    terminal.complain(FarmError(EVIL), as_json=False)
    terminal.complain(FarmError(EVIL), as_json=True)
    told = console.file.getvalue()
    assert told.count(CLEAN) == 5
    assert "\x1b[31m" in told  # the console's own colours stay
    for mark in ("\x1b]", "\x07", "\x9b", "\u202e", "\u2066", "\r", "\x00", "\x7f", "\ud800"):
        assert mark not in told


def test_lines_and_tabs_stay(console):
    console.print("one\n\ttwo", markup=False)
    assert console.file.getvalue().split() == ["one", "two"]


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, _: str) -> int:
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "EIO"), OSError(28, "ENOSPC")])
def test_a_farm_outlives_those_who_read_what_it_tells(monkeypatch, tmp_path, error):
    served = []

    class Farm:
        url = "http://127.0.0.1:1"

        def __init__(self, _: Settings, tell: object) -> None:
            self.tell = tell

        def __enter__(self):
            self.tell("Starting.")
            return self

        def __exit__(self, *_: object) -> None:
            self.tell("Stopping.")

        def serve(self) -> None:
            terminal.warn("The API died.")
            served.append(True)

    monkeypatch.setattr(up, "Farm", Farm)
    for name in ("out", "err"):
        monkeypatch.setattr(terminal, name, Terminal(file=Gone(error)))
    monkeypatch.setattr(sys, "stdout", Gone(error))
    for as_json in (False, True):
        up.up(Settings(home=tmp_path), as_json=as_json)
    assert served == [True, True]


def test_only_the_api_is_given_the_farms_keys(monkeypatch):
    keys = {"FARM_API_KEYS": "ann:s3cret-1", "FARM_SECRET_KEY": "s3cret-2", "FARM_API_KEY": "s3cret-3"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    assert keys.items() <= environment(with_keys=True).items()
    assert not keys.keys() & environment().keys()


def test_pictures_of_a_home_that_was_there_are_its_owners_alone(tmp_path):
    before = os.umask(0o022)
    try:
        (tmp_path / "pictures").mkdir(mode=0o755)
        home.keep_private(tmp_path / "pictures")
    finally:
        os.umask(before)
    assert (tmp_path / "pictures").stat().st_mode & 0o777 == 0o700
    assert Settings(home=tmp_path, storage_url="file:///shared").own_pictures is None
