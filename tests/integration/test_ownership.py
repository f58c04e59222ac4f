"""A farm knows its storage by a marker, and stores nothing where a disk is not mounted or another farm's lies."""

from __future__ import annotations

import shutil

import pytest
from sqlalchemy import text

from shared.db import sessions as database
from shared.db.farm import farm_id
from shared.errors import NotFound, StorageAway
from shared.media.ownership import guarded
from shared.media.storage import MARKER, Storage, job_prefix, key, upload_key
from shared.queue import transitions
from tests.support.queueing import Farmhand
from tests.support.servers import fresh_database


@pytest.fixture
def root(tmp_path):
    return tmp_path / "mnt" / "pictures"


@pytest.fixture
def make(root, sessions):
    """Makes the storage as a process of the farm has it at its start."""
    return lambda: guarded(str(root), sessions, farm_id(sessions))


@pytest.fixture
def committed(sessions, job_factory):
    """Commits a picture, as a farm from before there were markers stored it."""

    def commit(storage, data=b"picture", form="png"):
        job = job_factory(format=form)
        claim = Farmhand(sessions).worker().claim()
        storage.put(key(job.id, 0, claim.attempt, "picture", form), data)
        database.transact(sessions, lambda session: transitions.finish(session, claim, len(data)))
        return key(job.id, 0, claim.attempt, "picture", form)

    return commit


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("is_there", [False, True])
def test_the_first_use_of_an_empty_storage_by_a_new_farm_makes_the_marker(make, root, sessions, is_there):
    if is_there:
        (root / "lost+found").mkdir(parents=True)
    make().put("jobs/000/1/1-0000-1.png", b"picture")
    assert files(root) == ["jobs/000/1/1-0000-1.png", MARKER]
    assert (root / MARKER).read_text().splitlines()[0] == farm_id(sessions).value
    assert make().marker() == farm_id(sessions).value
    make().check()


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_a_farm_from_before_markers_marks_the_storage_that_holds_its_pictures(make, root, committed, form):
    name = committed(Storage(str(root)), form=form)
    make().put("jobs/000/7/7-0000-1.png", b"another")
    assert make().get(name) == b"picture"
    assert (root / MARKER).exists()


def test_pictures_whose_files_were_removed_are_not_looked_for(make, root, sessions, committed, monkeypatch):
    monkeypatch.setattr("shared.media.ownership._LATEST", 2)
    storage = Storage(str(root))
    _, *removed = [committed(storage) for _ in range(3)]
    with sessions.begin() as session:
        session.execute(text("UPDATE pictures SET deleted_at = now(), removed_at = now() WHERE job_id > 1"))
    for name in removed:
        storage.delete(name)
    make().check()
    assert (root / MARKER).exists()


def test_a_farm_from_before_markers_knows_its_storage_by_an_upload(make, root, sessions):
    Storage(str(root)).put(upload_key("ab" * 32), b"png")
    with sessions.begin() as session:
        columns = "owner, sha256, width, height, bytes"
        session.execute(text(f"INSERT INTO uploads ({columns}) VALUES ('ann', :sha, 1, 1, 3)"), {"sha": "ab" * 32})
    make().check()
    assert (root / MARKER).exists()


@pytest.mark.parametrize("form", ["png", "webp"])
def test_a_farm_from_before_markers_marks_no_storage_without_its_pictures(make, root, committed, form):
    committed(Storage(str(root.with_name("disk"))), form=form)
    for _ in range(2):
        with pytest.raises(StorageAway, match="none of this farm's pictures lie there: its disk may not be mounted"):
            make().check()
    assert not root.exists()


def test_a_farm_without_a_picture_remembers_that_it_has_marked_its_storage(make, root, sessions):
    storage = make()
    storage.check()
    root.rename(root.with_name("disk"))
    root.mkdir()
    for it in (storage, make()):
        with pytest.raises(StorageAway, match="this farm's marker is missing"):
            it.check()
    assert files(root) == []


@pytest.mark.parametrize("how", ["empty", "gone"])
def test_a_disk_that_is_not_mounted_is_never_written_to(make, root, committed, how):
    storage = make()
    name = committed(storage)
    root.rename(root.with_name("disk"))
    if how == "empty":
        root.mkdir()
    uses = (
        lambda it: it.put(key(9, 0, 1, "picture"), b"new"),
        lambda it: it.check(),
        lambda it: it.get(name),
        lambda it: it.exists(name),
        lambda it: it.delete(job_prefix(1)),
        lambda it: it.tidy(0),
    )
    for use in (*uses, *uses):
        for it in (storage, make()):
            with pytest.raises(StorageAway, match="farm storage adopt") as away:
                use(it)
            assert away.value.words.startswith("the storage takes no pictures: this farm's marker is missing")
    assert root.exists() is (how == "empty")
    if how == "empty":
        assert files(root) == []
        root.rmdir()
    root.with_name("disk").rename(root)
    storage.put(key(9, 0, 1, "picture"), b"new")
    assert storage.get(name) == b"picture"
    with pytest.raises(NotFound):
        storage.get(key(10, 0, 1, "picture"))


def test_the_storage_of_another_farm_is_told_and_left_alone(make, root, home):
    with fresh_database(home) as url:
        engine = database.connect(url)
        others = database.sessions(engine)
        with others.begin() as session:  # all databases of the tests have one template
            session.execute(text("UPDATE farm SET id = 'another'"))
        theirs = guarded(str(root), others, farm_id(others))
        theirs.put(key(1, 0, 1, "picture"), b"theirs")
        for use in (lambda: make().put(key(1, 0, 2, "picture"), b"ours"), lambda: make().delete(job_prefix(1))):
            with pytest.raises(StorageAway, match=rf"another farm: its file {MARKER} names {farm_id(others).value}"):
                use()
        theirs.put(key(1, 0, 2, "picture"), b"theirs too")
        engine.dispose()
    assert len(files(root)) == 3


def test_processes_that_mark_the_storage_at_the_same_time_do_not_refuse_it(make, root, sessions):
    late = make()
    make().put(key(1, 0, 1, "picture"), b"picture")
    late._guard(late, None, marks=True)  # the marker was not there when it looked
    assert late.marker() == farm_id(sessions).value


def test_looking_for_an_object_marks_nothing(make, root, sessions):
    def is_noted():
        with sessions() as session:
            return session.scalar(text("SELECT storage_marked_at IS NOT NULL FROM farm"))

    for is_marked in (False, True):
        storage = make()
        assert not storage.exists(key(1, 0, 1, "picture"))
        with pytest.raises(NotFound):
            storage.get(key(1, 0, 1, "picture"))
        assert not is_noted()
        assert (root / MARKER).exists() is is_marked
        storage.mark(farm_id(sessions).value)
    storage.delete(job_prefix(1))
    assert is_noted()


def test_a_farm_without_a_picture_takes_no_storage_that_holds_any_even_of_a_job_it_knows(make, root, job_factory):
    job = job_factory()
    Storage(str(root)).put(key(job.id, 0, 1, "picture"), b"of another farm's first job")
    with pytest.raises(StorageAway, match="it holds pictures that this farm does not know"):
        make().check()
    assert MARKER not in files(root)


def test_pictures_that_a_farm_does_not_know_are_not_taken_for_its_own(make, root, committed):
    Storage(str(root)).put(key(1, 0, 1, "picture"), b"of a farm from before markers")
    with pytest.raises(StorageAway, match="it holds pictures that this farm does not know"):
        make().check()
    elsewhere = Storage(str(root.with_name("elsewhere")))
    committed(elsewhere, b"ours, of the same name")
    with pytest.raises(StorageAway, match="it holds other pictures than this farm's"):
        make().check()
    assert MARKER not in files(root)


@pytest.mark.parametrize("has_marker", [False, True])
def test_a_process_that_outlives_its_database_marks_nothing_in_the_name_of_the_farm_before(
    make, root, sessions, has_marker
):
    storage, before = make(), farm_id(sessions).value
    storage._guard._farm_id.value  # noqa: B018 - told, and kept
    if has_marker:
        Storage(str(root)).mark(before)
    with sessions.begin() as session:
        session.execute(text("UPDATE farm SET id = 'made again'"))
    if has_marker:
        storage.check()
    else:
        with pytest.raises(StorageAway, match="belongs to another farm than at the start of this process; start"):
            storage.check()
        assert not root.exists()
    with sessions.begin() as session:
        assert session.scalar(text("SELECT storage_marked_at FROM farm")) is None


def test_a_person_says_that_it_is_the_farms_storage_all_the_same(make, root, sessions, committed):
    committed(make())
    shutil.rmtree(root)
    with pytest.raises(StorageAway):
        make().check()
    make().mark(farm_id(sessions).value)
    make().check()


def test_while_the_database_has_not_told_the_farms_id_nothing_is_stored(tmp_path):
    engine = database.connect(f"postgresql+psycopg:///stepfarm?host={tmp_path}")
    sessions = database.sessions(engine)
    storage = guarded(str(tmp_path / "pictures"), sessions, farm_id(sessions))
    with pytest.raises(StorageAway, match="does not say which farm owns the storage"):
        storage.put(key(1, 0, 1, "picture"), b"picture")
    assert not (tmp_path / "pictures").exists()
    engine.dispose()


def test_a_marker_that_a_person_has_spoilt_is_another_farms(make, root):
    make().check()
    for spoilt in (b"", b"\xff\xfe\0", b"x" * 100_000):
        (root / MARKER).write_bytes(spoilt)
        with pytest.raises(StorageAway, match="it belongs to another farm"):
            make().check()
