"""Where the servers of a run keep their files: in memory if there is room, and no longer than the run."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from tests.support import servers
from tests.support.servers import folder_in_memory


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch):
    """A folder in place of the machine's, with room."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(servers, "MEMORY", folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=servers.MEMORY_NEEDED))
    return folder


def test_it_is_new_and_gone_with_all_that_lies_in_it(memory, tmp_path):
    with folder_in_memory(tmp_path) as folder:
        assert (folder.parent, list(folder.iterdir())) == (memory, [])
        (folder / "file").touch()
    assert list(memory.iterdir()) == []


def test_another_run_leaves_the_folder_of_a_living_one_and_removes_that_of_a_dead_one(memory, tmp_path):
    dead = memory / "stepfarm-tests-dead"
    (dead / "home").mkdir(parents=True)
    with folder_in_memory(tmp_path) as one, folder_in_memory(tmp_path) as other:
        assert {*memory.iterdir()} == {one, other}


@pytest.mark.parametrize("lack", ["room", "folder"])
def test_without_room_the_disk_is_taken(memory, monkeypatch, tmp_path, lack):
    if lack == "room":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=servers.MEMORY_NEEDED - 1))
    else:
        memory.rmdir()
    with folder_in_memory(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.is_dir()
