from __future__ import annotations

import pytest

from shared import catalogue
from shared.catalogue import Inspection
from shared.database import transact
from shared.errors import ModelFileError
from shared.scan import scan
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


def test_a_checkpoint_that_has_changed_since_it_was_hashed_is_refused(settings, sessions, file):
    (settings.models / "demo.safetensors").write_bytes(b"other weights")
    with pytest.raises(ModelFileError, match=r"demo\.safetensors is not in"):
        ModelFiles(sessions, settings.models).find(file.sha256)


def test_an_unknown_hash_is_named(settings, sessions):
    with pytest.raises(ModelFileError, match="the checkpoint aaaaaaaaaa is not in"):
        ModelFiles(sessions, settings.models).find("a" * 64)
