"""How the tests themselves are run: who shares a process, who runs alone, and what may take how long."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import running

ROOT = Path(__file__).parents[2]
CONFTEST = """
import os
from pathlib import Path

import pytest

from tests.support import running

pytest_plugins = ["tests.support.running"]
running.BUDGET_SECONDS = 0.4
os.getloadavg = lambda: (0.0, 0.0, 0.0)


@pytest.fixture
def told(request):
    def tell(what):
        with Path("told").open("a") as file:
            file.write(f"{what} {os.getpid()} {request.path.stem}\\n")

    tell("in")
    yield
    tell("out")
"""
COMPANY = """
import time

import pytest


@pytest.mark.parametrize("number", range(10))
def test_company(told, number):
    time.sleep(0.05)
"""
ALONE = """
import time

import pytest

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("number", range(3))
def test_alone(told, number):
    time.sleep(0.05)
"""
SLOW = """
import time

import pytest


def test_slow():
    time.sleep(0.5)


@pytest.mark.nightly
def test_slow_at_night():
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class Run:
    """What a small suite answered, and who was in which test when."""

    answer: subprocess.CompletedProcess[str]
    told: list[tuple[str, str, str]]  # in or out, process, file


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A small suite in two processes; `make test` runs ours in three."""
    folder = tmp_path_factory.mktemp("suite")
    files = {"conftest": CONFTEST, "test_one": COMPANY, "test_two": COMPANY, "test_zero": ALONE, "test_slow": SLOW}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    alone\n    nightly\n    browser\n")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    answer = subprocess.run(
        [sys.executable, *command, "--no-loadscope-reorder", "--basetemp", str(folder / "temp")],
        cwd=folder,
        env=environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    return Run(answer, [tuple(line.split()) for line in (folder / "told").read_text().splitlines()])


def test_a_file_stays_in_one_process(run):
    assert {len({process for _, process, file in run.told if file == name}) for _, _, name in run.told} == {1}
    assert len({process for _, process, _ in run.told}) == 2


def test_what_runs_alone_has_no_company(run):
    begun = [place for place, (what, _, file) in enumerate(run.told) if (what, file) == ("in", "test_zero")]
    assert len(begun) == 3
    for place in begun:
        assert run.told[place + 1] == ("out", *run.told[place][1:])


def test_what_takes_too_long_fails_under_the_name_that_one_can_type(run):
    assert "1 failed, 24 passed" in run.answer.stdout
    assert "FAILED test_slow.py::test_slow - It took 0.5 s" in run.answer.stdout


def test_garbage_is_not_looked_for_among_what_has_been_imported():
    assert gc.get_freeze_count() > len(sys.modules)
    assert not any(one is pytest for one in gc.get_objects())


@pytest.mark.parametrize(("load", "times"), [(0.0, 0.0), (1.0, 1.0), (2.5, 2.5)])
def test_a_busy_machine_gives_more_time(monkeypatch, load, times):
    monkeypatch.setattr(os, "getloadavg", lambda: (load * os.cpu_count(), 0.0, 0.0))
    assert running.load_per_core() == pytest.approx(times)


def test_every_exception_is_a_file_of_today():
    assert all((ROOT / name).exists() for name in running.MAY_TAKE_LONGER)
