"""`farm styles`: the styles of this machine's farm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli import main as cli
from shared.errors import FarmError
from shared.prompts import styles
from shared.prompts.styles import Style


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "styles.csv"
    path.write_text("name,prompt,negative_prompt\nInk,an ink drawing of {prompt},colour\n")
    monkeypatch.setenv("FARM_STYLES", str(path))
    monkeypatch.setenv("FARM_HOME", str(tmp_path))
    return path


def farm(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(cli.app, ["styles", *arguments], input=typed)


def test_styles_are_listed() -> None:
    answer = farm()
    assert answer.exit_code == 0
    assert "Ink" in answer.stdout
    assert "an ink drawing of {prompt}" in answer.stdout
    told = json.loads(farm("--json").stdout)
    assert told == {"styles": [{"name": "Ink", "prompt": "an ink drawing of {prompt}", "negative_prompt": "colour"}]}


def test_a_style_is_added(file: Path) -> None:
    assert farm("add", "Sea", "--prompt", "waves", "--negative", "land").exit_code == 0
    assert styles.load(file)["Sea"] == Style("Sea", "waves", "land")
    assert isinstance(farm("add", "Sea").exception, FarmError)
    assert farm("add", "Sea", "--replace", "--json").stdout == '{"added": "Sea"}\n'
    assert styles.load(file)["Sea"] == Style("Sea")


@pytest.mark.parametrize("name", ["", "  ", "#sea"])
def test_a_style_needs_a_name(name: str) -> None:
    answer = farm("add", name)
    assert answer.exit_code == 2
    assert "name has letters" in answer.stderr


@pytest.mark.parametrize(("typed", "stays"), [("n\n", True), ("", True), ("y\n", False)])
def test_a_style_is_removed_once_that_is_confirmed(file: Path, typed: str, *, stays: bool) -> None:
    answer = farm("remove", "Ink", typed=typed)
    assert ("Ink" in styles.load(file)) is stays
    assert (answer.exit_code == 0) is not stays
    assert "an ink drawing of" in answer.stderr


def test_a_program_removes_a_style_without_being_asked(file: Path) -> None:
    answer = farm("remove", "Ink", "--yes", "--json")
    assert json.loads(answer.stdout) == {"removed": "Ink"}
    assert not styles.load(file)
    assert file.with_name("styles.csv.bak").exists()


def test_styles_of_another_machine_are_not_changed_here(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("FARM_URL", "http://farm.example")
    before = file.read_text()
    for command in (["add", "Sea"], ["remove", "Ink", "--yes"]):
        answer = farm(*command)
        assert isinstance(answer.exception, FarmError)
        assert "change them there" in str(answer.exception)
    assert file.read_text() == before
