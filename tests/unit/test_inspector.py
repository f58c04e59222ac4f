"""How a worker looks into files: what a file does to its reader is said of the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.confined.process import Confined
from shared.errors import NotConfined, Unreadable
from shared.waiting import backoff
from tests.support.file_fates import FOUND
from worker.render import inspector
from worker.render.inspector import LIMITS, Inspector


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch):
    looks = Inspector(replace(LIMITS, seconds=20))
    looks._child = Confined("tests.support.file_fates", LIMITS)
    yield looks
    looks.close()


def test_the_file_is_told_of_and_the_next_one_is_looked_into(inspect: Inspector, tmp_path: Path) -> None:
    for name in ("dies", "hoards", "fine"):
        (tmp_path / name).touch()
    with pytest.raises(ChildProcessError, match=r"^reading it ended its process twice \(SIGBUS\)$"):
        inspect(tmp_path / "dies")
    hoards = inspect(tmp_path / "hoards")
    assert hoards.reason == "reading it was given up: it takes more than 512 MB of memory; replace the file"
    assert inspect(tmp_path / "fine") == inspector.Inspection(**FOUND)


def test_a_child_that_dies_once_may_have_been_the_machines_fault(inspect: Inspector, tmp_path: Path) -> None:
    (tmp_path / "once").touch()
    assert inspect(tmp_path / "once").reason is None


def test_without_a_child_nothing_is_said_of_a_file(tmp_path: Path) -> None:
    looks = Inspector()
    looks._child = Confined("tests.unit.nothing_there", LIMITS)
    (tmp_path / "fine").touch()
    with pytest.raises(NotConfined):
        looks(tmp_path / "fine")


def test_a_file_that_stays_as_it_is_is_asked_about_once(inspect: Inspector, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    first = inspect(tmp_path / "x")
    inspect.close()
    inspect._child = Confined("tests.unit.nothing_there", LIMITS)
    assert inspect(tmp_path / "x") is first
    (tmp_path / "x").write_bytes(b"12")
    with pytest.raises(NotConfined):
        inspect(tmp_path / "x")


class Struggling:
    """A child that fails until it may succeed."""

    def __init__(self, *limits: str | None) -> None:
        self.limits = list(limits)
        self.asked = 0

    def ask(self, _: bytes) -> bytes:
        self.asked += 1
        if self.limits:
            raise Unreadable("it ended its process (SIGKILL)", self.limits.pop(0))
        return json.dumps(FOUND).encode()

    def close(self) -> None: ...


@pytest.mark.parametrize(("limits", "error"), [((None, None), ChildProcessError), (("time",), TimeoutError)])
def test_what_may_be_the_machines_fault_is_tried_again_after_a_pause(
    limits, error, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(backoff, "time", SimpleNamespace(monotonic=lambda: now[0]))
    looks, path = Inspector(), tmp_path / "x"
    looks._child = child = Struggling(*limits * 3)
    path.touch()
    for pause in (60, 120, 240):
        for passes in (0, pause - 1, 1):
            with pytest.raises(error):
                looks(path)
            now[0] += passes
    assert child.asked == 3 * len(limits)
    assert looks(path).reason is None


def test_a_file_that_changes_is_tried_again_at_once(tmp_path: Path) -> None:
    looks, path = Inspector(), tmp_path / "x"
    looks._child = Struggling("time")
    path.touch()
    with pytest.raises(TimeoutError):
        looks(path)
    path.write_bytes(b"more")
    assert looks(path).reason is None
