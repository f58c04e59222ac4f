"""The worker's scan: what lies in the models folder stands in the catalogue, and stays known while its disk is away."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from shared import catalogue, database
from shared.database import transact
from shared.settings import Settings
from shared.tables import ModelFile
from tests.checkpoints import write_tiny
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


def test_a_hostile_file_keeps_no_other_out_of_the_catalogue(worker, sessions):
    models = worker.settings.models
    write_tiny(models / "good.safetensors")
    weights = safetensors.torch.load_file(models / "good.safetensors")
    figures = (models / "good.yaml").read_text()
    save(weights | {"model.diffusion_model.\x00": torch.zeros(1)}, models / "name.safetensors", figures)
    save(weights, models / "figure.safetensors", figures.replace("image_size: 8", "image_size: 0"))
    save(weights, models / "nested.safetensors", "[" * 5000)
    Scan(worker).turn()
    assert {file.name: file.usable for file in entries(sessions)} == {
        "good": True, "name": False, "figure": False, "nested": False,
    }  # fmt: skip


def save(weights: dict[str, torch.Tensor], path: Path, figures: str) -> None:
    safetensors.torch.save_file(weights, path)
    path.with_suffix(".yaml").write_text(figures)


def test_a_file_that_is_gone_leaves_the_catalogue(worker, sessions):
    for name in ("broken", "other"):
        (worker.settings.models / f"{name}.ckpt").write_bytes(b"")
    scan = Scan(worker)
    scan.turn()
    (worker.settings.models / "broken.ckpt").unlink()
    scan.turn()
    assert [file.name for file in entries(sessions)] == ["other"]


def test_while_the_models_folder_is_away_the_catalogue_stays(worker, sessions, tmp_path: Path):
    (worker.settings.models / "broken.ckpt").write_bytes(b"")
    scan = Scan(worker)
    scan.turn()
    worker.settings.models.rename(tmp_path / "away")
    scan.turn()
    assert [file.name for file in entries(sessions)] == ["broken"]
    worker.settings.models.mkdir()  # an empty place where the disk would be mounted
    scan.turn()
    assert [file.name for file in entries(sessions)] == ["broken"]
