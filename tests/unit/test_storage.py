"""The storage in a folder: whole, synced, never overwritten, inside its root."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from shared.errors import NotFound, SettingsError, StorageError
from shared.media.storage import Storage, job_prefix, key, upload_key

PICTURE = key(17, 3, 2, "picture")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a b%20" / "pictures"


@pytest.fixture
def storage(root: Path) -> Storage:
    return Storage(f"file://{root}")


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_key_holds_job_index_and_attempt():
    assert PICTURE == "jobs/000/17/17-0003-2.png"
    assert key(12345, 0, 1, "thumbnail") == "jobs/012/12345/12345-0000-1.webp"
    assert PICTURE.startswith(f"{job_prefix(17)}/")


def test_what_is_put_can_be_got(storage, root):
    storage.put(PICTURE, b"png")
    assert storage.get(PICTURE) == b"png"
    assert storage.exists(PICTURE)
    assert files(root) == {PICTURE}


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_named_with_or_without_a_scheme(form, root):
    Storage(form.format(root)).put(PICTURE, b"png")
    assert files(root) == {PICTURE}


def test_putting_the_same_again_does_nothing_and_other_data_is_refused(storage):
    storage.put(PICTURE, b"png")
    storage.put(PICTURE, b"png")
    with pytest.raises(StorageError, match="nothing is overwritten"):
        storage.put(PICTURE, b"other")
    assert storage.get(PICTURE) == b"png"


def test_what_is_not_there_is_not_found(storage):
    assert not storage.exists(PICTURE)
    for missing in (PICTURE, "jobs"):
        with pytest.raises(NotFound):
            storage.get(missing)


def test_deleting_a_job_spares_the_job_whose_number_begins_alike(storage):
    storage.put(PICTURE, b"1")
    storage.put(key(171, 0, 1, "picture"), b"2")
    storage.delete(job_prefix(17))
    storage.delete(job_prefix(17))
    assert not storage.exists(PICTURE)
    assert storage.exists(key(171, 0, 1, "picture"))


@pytest.mark.parametrize(
    "bad", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a\n", "a\\b", ".hidden", "ä"]
)
def test_a_key_that_could_leave_the_root_is_refused(storage, bad):
    for use in (lambda: storage.put(bad, b""), lambda: storage.get(bad), lambda: storage.delete(bad)):
        with pytest.raises(ValueError, match="is not a key"):
            use()


def test_a_full_disk_is_reported_and_leaves_nothing_behind(storage, root, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(
        os, "fsync", lambda descriptor: None if Path(f"/proc/self/fd/{descriptor}").is_dir() else full(0)
    )
    with pytest.raises(StorageError, match="the disk is full"):
        storage.put(PICTURE, b"png")
    with pytest.raises(StorageError, match="the disk is full"):
        storage.check()
    assert files(root) == set()


def test_a_picture_is_on_the_disk_before_put_returns(storage, root, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    storage.put(PICTURE, b"png")
    file, folder = synced[-2:]
    assert Path(file).parent == Path(folder) == root / job_prefix(17)
    assert Path(file).name.startswith(".")  # under its temporary name: complete before it shows
    assert str(root) in synced  # new folders last too


def test_check_tells_whether_pictures_can_be_stored(storage, root, tmp_path):
    storage.check()
    assert files(root) == set()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="File exists"):
        Storage(str(tmp_path / "file" / "pictures")).check()


def test_free_room_is_told(storage):
    assert storage.free_bytes() > 0


@pytest.mark.parametrize("url", ["ftp://host/x", "http://x", "s3://bucket?endpoint=http://x"])
def test_a_url_that_no_storage_takes_is_refused(url):
    with pytest.raises(SettingsError, match="FARM_STORAGE_URL"):
        Storage(url)


def test_what_attempts_left_is_told_with_its_attempt_and_discarded_one_by_one(storage, root):
    film, other = key(17, 3, 2, "film"), key(12345, 0, 1, "picture", "jpeg")
    for name in (PICTURE, film, other, "uploads/ab/17-0003-2.png", "jobs/000/17/readme.png"):
        storage.put(name, b"data")
    half = f"{job_prefix(17)}/.17-0003-1.png.0a.tmp"
    (root / half).touch()
    shelves = list(storage.objects())
    assert [[(left.name, left.job_id, left.index, left.attempt) for left in shelf] for shelf in shelves] == [
        [(half, 17, 3, 1), (film, 17, 3, 2), (PICTURE, 17, 3, 2)],
        [(other, 12345, 0, 1)],
    ]
    for left in shelves[0][:2] * 2:
        storage.discard(left)
    assert files(root) == {PICTURE, other, "uploads/ab/17-0003-2.png", "jobs/000/17/readme.png"}


def test_what_killed_processes_left_is_tidied_up_when_it_is_old(storage, root):
    upload = upload_key("ab" * 32)
    storage.put(upload, b"png")
    storage.put(PICTURE, b"png")
    folder = (root / upload).parent
    old = [root / f"check-{'0' * 32}", root / ".check-1.0a.tmp", folder / ".1.png.0a.tmp"]
    young = [root / f"check-{'1' * 32}", folder / ".2.png.0a.tmp"]
    for path in (*old, *young):
        path.touch()
    for path in (*old, root / upload, root / PICTURE):
        os.utime(path, (time.time() - 100, time.time() - 100))
    assert storage.tidy(99) == 3
    assert files(root) == {upload, PICTURE, *(str(path.relative_to(root)) for path in young)}
    assert storage.tidy(99) == 0
