from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import update

from shared import catalogue
from shared import scan as scans
from shared.catalogue import Inspection
from shared.database import transact
from shared.errors import ModelFileAway, ModelFileError, NotUnderstood
from shared.scan import scan
from shared.tables import ModelFile
from worker.model_files import ModelFiles


@pytest.fixture
def file(settings, sessions):
    path = settings.models / "demo.safetensors"
    path.write_bytes(b"weights")
    seen = scan(settings.models, [], lambda _: Inspection("checkpoint", "sd1", 512))
    transact(sessions, lambda session: catalogue.record(session, seen))
    return seen[0]


def test_a_checkpoint_is_found_by_its_hash(settings, sessions, file):
    found = ModelFiles(sessions, settings.models).find(file.sha256)
    assert (found.name, found.path, found.bytes) == ("demo", settings.models / "demo.safetensors", 7)


@pytest.mark.parametrize("belongs", ["demo.safetensors", "demo.yaml"])
def test_a_checkpoint_that_was_only_touched_is_found(settings, sessions, file, belongs):
    (settings.models / belongs).touch()
    os.utime(settings.models / belongs)
    assert ModelFiles(sessions, settings.models).find(file.sha256).name == "demo"


def test_a_checkpoint_that_has_other_contents_here_is_left_to_others(settings, sessions, file):
    (settings.models / "demo.safetensors").write_bytes(b"changed")
    with pytest.raises(ModelFileAway, match=r"demo\.safetensors is not in"):
        ModelFiles(sessions, settings.models).find(file.sha256)


def test_a_checkpoint_that_is_gone_for_the_farm_too_cannot_be_used(settings, sessions, file):
    (settings.models / "demo.safetensors").unlink()
    files = ModelFiles(sessions, settings.models)
    with pytest.raises(ModelFileAway):
        files.find(file.sha256)
    for expected in (ModelFileAway, ModelFileError):  # nothing found may mean no disk; found gone, it may come back
        age(sessions)
        transact(sessions, lambda session: catalogue.record(session, []))
        with pytest.raises(ModelFileError) as gone:
            files.find(file.sha256)
        assert type(gone.value) is expected
    assert not gone.value.retryable


def age(sessions):
    """Let what the scans noted lie six minutes back."""
    back = update(ModelFile).values(scanned_at=ModelFile.scanned_at - timedelta(minutes=6))
    transact(sessions, lambda session: session.execute(back))


def test_slots_that_meet_a_touched_checkpoint_hash_it_once(settings, sessions, file, monkeypatch):
    os.utime(settings.models / file.path)
    files, hashed, together = ModelFiles(sessions, settings.models), [], Barrier(4)
    hash_file = scans.sha256
    monkeypatch.setattr(scans, "sha256", lambda path: hashed.append(path) or hash_file(path))

    def find(_):
        together.wait(10)
        return files.find(file.sha256).name

    with ThreadPoolExecutor(4) as slots:
        assert set(slots.map(find, range(4))) == {"demo"}
    assert len(hashed) == 1


def test_an_unknown_hash_is_named(settings, sessions):
    with pytest.raises(ModelFileError, match="the checkpoint aaaaaaaaaa is not in"):
        ModelFiles(sessions, settings.models).find("a" * 64)


def test_a_file_that_only_a_newer_version_can_load_is_left_to_it(sessions, tmp_path, checkpoint_factory):
    newer = checkpoint_factory("large", architecture="sd9")
    with pytest.raises(NotUnderstood, match="sd9") as raised:
        ModelFiles(sessions, tmp_path).find(newer.sha256)
    assert raised.value.what == "the architecture sd9 of large"
