"""What the command line says about the storage, and how a person gives a farm another one."""

from __future__ import annotations

import json

import pytest

from cli import farm_checks
from cli.storage import adopt
from shared.db import sessions as database
from shared.db.farm import farm_id
from shared.errors import Refused, StorageAway
from shared.media.ownership import guarded
from shared.media.storage import MARKER, Storage, key
from shared.queue import transitions
from tests.support.queueing import Farmhand


@pytest.fixture
def root(settings):
    return settings.home / "pictures"


@pytest.fixture
def there(settings, root):
    """Settings of a farm that uses its database and storage."""
    root.mkdir(parents=True)
    return settings.model_copy(update={"storage_url": str(root)})


@pytest.fixture
def committed(sessions, there, job_factory):
    job = job_factory()
    claim = Farmhand(sessions).worker().claim()
    guarded(there.storage, sessions, farm_id(sessions)).put(key(job.id, 0, 1, "picture"), b"picture")
    database.transact(sessions, lambda session: transitions.finish(session, claim, 7))
    return job


def test_doctor_marks_and_praises_the_storage_of_a_new_farm(there, root):
    assert farm_checks.storage(there).level == "fine"
    assert (root / MARKER).exists()


def test_doctor_says_what_to_do_about_a_disk_that_is_not_mounted(there, root, committed):
    root.rename(root.with_name("disk"))
    root.mkdir()
    found = farm_checks.storage(there)
    assert found.level == "bad"
    assert found.text.startswith("The storage takes no pictures: this farm's marker is missing")
    assert str(root) in found.text
    assert "Mount the right disk" in found.advice
    assert "`farm storage adopt`" in found.advice
    assert not list(root.iterdir())


def test_doctor_says_why_nothing_can_be_stored(there, root):
    (root / "file").touch()
    found = farm_checks.storage(there.model_copy(update={"storage_url": str(root / "file" / "pictures")}))
    assert (found.level, found.text.partition(" (")[0]) == ("bad", "The storage takes no pictures: Not a directory")
    assert "Make it writable for this user" in found.advice


def test_an_empty_storage_in_the_place_of_one_that_was_lost_is_adopted(there, root, committed, sessions, capsys):
    root.rename(root.with_name("lost"))
    adopt(there, yes=False, as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "storage": str(root),
        "farm": farm_id(sessions).value,
        "was": None,
    }
    guarded(there.storage, sessions, farm_id(sessions)).check()


def test_another_farms_storage_is_adopted_only_when_that_is_said(there, sessions, job_factory, capsys):
    Storage(there.storage).mark("another-farm")
    Storage(there.storage).put(key(41, 0, 1, "picture"), b"of the other farm")
    with pytest.raises(Refused, match="its marker names another-farm"):
        adopt(there, yes=False, as_json=False)
    with pytest.raises(StorageAway, match="it belongs to another farm"):
        guarded(there.storage, sessions, farm_id(sessions)).check()
    adopt(there, yes=True, as_json=False)
    assert "is this farm's" in capsys.readouterr().out
    assert job_factory().id > 41
