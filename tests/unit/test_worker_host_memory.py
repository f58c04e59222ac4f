"""What of a file is in memory already, and how much memory a machine has for checkpoints."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.support.waiting import until
from worker.render import host_memory, page_cache

MIB = 2**20


def written(path: Path, size: int = MIB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def is_out_of_memory_once_dropped(path: Path, looked_at: Path) -> bool:
    """Drop a file from memory and look. The kernel may keep it, or read it ahead while it is looked at."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return not page_cache.holds(looked_at)


def share_in_memory(path: Path) -> float:
    """Return how much of a file the kernel has in memory, from 0 to 1. This reads nothing, as a look does."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        there = ctypes.c_void_p(ctypes.addressof(start))
        failed = ctypes.CDLL(None).mincore(there, ctypes.c_size_t(len(mapped)), pages)
        del start  # a mapping that is looked into cannot be closed
    assert not failed
    return sum(page & 1 for page in pages) / len(pages)


@pytest.fixture
def can_tell(tmp_path: Path) -> None:
    if not page_cache.holds(written(tmp_path / "known")):
        pytest.skip("this file system does not say what of a file is in memory")


@pytest.mark.usefixtures("can_tell")
def test_a_file_that_was_just_written_or_read_is_in_memory_until_it_is_dropped(tmp_path: Path):
    path = written(tmp_path / "model.safetensors")
    assert page_cache.holds(path)
    until(lambda: is_out_of_memory_once_dropped(path, path), 60, "the file to be dropped from memory")
    path.read_bytes()
    assert page_cache.holds(path)


@pytest.mark.usefixtures("can_tell")
def test_that_a_file_was_looked_at_brings_it_into_no_memory(tmp_path: Path):
    path = written(tmp_path / "model.safetensors", 16 * MIB)
    until(lambda: is_out_of_memory_once_dropped(path, path), 60, "the file to be dropped from memory")
    before = share_in_memory(path)
    for _ in range(5):
        page_cache.holds(path)  # a disk that answers at once passes for memory, so the answer is not asserted
    assert share_in_memory(path) < before + 0.5


@pytest.mark.usefixtures("can_tell")
def test_a_folder_is_in_memory_when_its_files_are(tmp_path: Path):
    files = [written(tmp_path / "model" / part / "weights.safetensors") for part in ("unet", "vae")]
    assert page_cache.holds(tmp_path / "model")
    until(lambda: is_out_of_memory_once_dropped(files[0], tmp_path / "model"), 60, "a part to be dropped from memory")


def test_what_is_not_there_or_says_nothing_is_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert not page_cache.holds(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert not page_cache.holds(tmp_path / "empty")

    def unsupported(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", unsupported)
    assert not page_cache.holds(written(tmp_path / "model.safetensors"))


def test_a_pipe_is_never_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert not page_cache.holds(tmp_path / "pipe")


def bounded(folder: Path, bounds: dict[str, str], place: str = "/") -> int:
    own = folder / "own"
    own.write_text(f"0::{place}\n")
    for name, bound in bounds.items():
        file = folder / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{bound}\n")
    return host_memory.total_bytes(folder / "groups", own)


@pytest.mark.parametrize(
    ("bounds", "place", "total"),
    [
        ({"memory.max": str(64 * MIB)}, "/", 64 * MIB),
        ({"a/memory.max": "max", "a/b/memory.max": str(32 * MIB)}, "/a/b", 32 * MIB),
        ({"a/memory.max": str(16 * MIB), "a/b/memory.max": str(32 * MIB)}, "/a/b", 16 * MIB),
        ({"memory/memory.limit_in_bytes": str(8 * MIB)}, "/", 8 * MIB),
    ],
)
def test_a_container_has_what_its_bounds_leave(tmp_path: Path, bounds: dict[str, str], place: str, total: int):
    assert bounded(tmp_path, bounds, place) == total


def test_without_bounds_it_is_the_machines(tmp_path: Path):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert bounded(tmp_path, {"memory.max": "max"}) == machine
    assert bounded(tmp_path, {"memory/memory.limit_in_bytes": str(2**63 - 4096)}) == machine
    assert host_memory.total_bytes(tmp_path / "none", tmp_path / "absent") == machine


def test_a_quarter_of_it_keeps_checkpoints_unless_a_setting_says_otherwise():
    assert host_memory.cache_bytes(Settings()) == host_memory.total_bytes() // 4
    assert host_memory.cache_bytes(Settings(host_cache_bytes=0)) == 0
    assert host_memory.cache_bytes(Settings(host_cache_bytes=5)) == 5


def test_models_on_the_cpu_take_half_of_it_unless_a_setting_says_otherwise():
    assert host_memory.resident_bytes(Settings()) == host_memory.total_bytes() // 2
    assert host_memory.resident_bytes(Settings(resident_bytes=5)) == 5
