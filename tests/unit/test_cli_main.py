"""The `farm` command as people meet it: its help, its messages, its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest
from typer.testing import CliRunner

from cli import main as cli
from tests.support.servers import clean_environment


def farm(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        env=clean_environment() | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_answers_at_once():
    """In processor time, which what else the machine does hardly changes."""
    farm("--help")  # once to compile and warm the files
    before = getrusage(RUSAGE_CHILDREN)
    assert farm("--help").returncode == 0
    after = getrusage(RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_help_imports_nothing_heavy():
    code = "import sys, cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"flask", "sqlalchemy", "httpx", "pydantic", "torch"} & set(loaded)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["cancel", "17"],
        *(pytest.param(one, marks=pytest.mark.nightly) for one in (["retry", "17"], ["hold", "17"], ["models"])),
    ],
)
def test_command_without_a_farm_says_how_to_start_one(command: list[str], tmp_path: Path):
    answer = farm(*command, FARM_HOME=str(tmp_path))
    assert answer.returncode == 1
    assert f"No farm runs in {tmp_path}. Start one with `make up`" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("command", ["api", pytest.param("worker", marks=pytest.mark.nightly), "db"])
def test_part_without_its_servers_says_what_to_set(command: str, tmp_path: Path):
    answer = farm(*([command, "upgrade"] if command == "db" else [command]), FARM_HOME=str(tmp_path))
    assert answer.returncode == 1
    assert "FARM_DATABASE_URL" in answer.stderr
    assert "farm up" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_address_that_nobody_answers_is_named(tmp_path: Path):
    answer = farm("status", FARM_URL="http://127.0.0.1:9", FARM_HOME=str(tmp_path))
    assert answer.returncode == 1
    assert "Nothing answers at http://127.0.0.1:9" in answer.stderr


def test_setting_that_cannot_be_used_is_named():
    answer = farm("status", FARM_PORT="eighty")
    assert answer.returncode == 1
    assert "FARM_PORT='eighty'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_error_is_json_for_programs(tmp_path: Path):
    answer = farm("status", "--json", FARM_HOME=str(tmp_path))
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert json.loads(answer.stderr)["error"] == "NotRunning"


def test_logs_without_a_farm_say_so(tmp_path: Path):
    answer = farm("logs", FARM_HOME=str(tmp_path))
    assert answer.returncode == 1
    assert "No farm has run in this FARM_HOME yet." in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--size", "512"], "WIDTHxHEIGHT"),
        (["--size", "axb"], "WIDTHxHEIGHT"),
        (["--steps", "many"], "--steps"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_option_that_cannot_be_read_is_named(arguments: list[str], complaint: str):
    answer = CliRunner().invoke(cli.app, ["render", "sea", *arguments])
    assert answer.exit_code == 2
    assert complaint in answer.output


@pytest.mark.parametrize(
    "command",
    ["up", "api", "worker", "render", "status", "cancel", "retry", "hold", "release", "models", "logs", "doctor"],
)
def test_every_command_speaks_json(command: str):
    assert "--json" in CliRunner().invoke(cli.app, [command, "--help"]).output
