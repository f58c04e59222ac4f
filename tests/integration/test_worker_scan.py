"""The worker's scan: what lies in the models folder stands in the catalogue, and stays known while its disk is away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from shared import catalogue, database
from shared.database import transact
from shared.settings import Settings
from shared.tables import ModelFile
from worker.scan import Scan


@pytest.fixture
def worker(settings: Settings, sessions: database.Sessions) -> SimpleNamespace:
    """As much of a worker as a scan needs."""
    return SimpleNamespace(id=1, settings=settings, sessions=sessions)


def entries(sessions: database.Sessions) -> list[ModelFile]:
    return transact(sessions, catalogue.entries)


def test_a_broken_file_is_recorded_as_unusable_with_its_reason(worker, sessions):
    (worker.settings.models / "broken.safetensors").write_bytes(b"not a checkpoint")
    Scan(worker).turn()
    (file,) = entries(sessions)
    assert (file.name, file.usable) == ("broken", False)
    assert file.reason


def test_a_file_that_is_gone_leaves_the_catalogue(worker, sessions):
    path = worker.settings.models / "broken.ckpt"
    path.write_bytes(b"")
    scan = Scan(worker)
    scan.turn()
    path.unlink()
    scan.turn()
    assert entries(sessions) == []


def test_while_the_models_folder_is_away_the_catalogue_stays(worker, sessions, tmp_path: Path):
    (worker.settings.models / "broken.ckpt").write_bytes(b"")
    scan = Scan(worker)
    scan.turn()
    worker.settings.models.rename(tmp_path / "away")
    scan.turn()
    assert [file.name for file in entries(sessions)] == ["broken"]
