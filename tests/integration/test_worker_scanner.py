"""The worker's scan: what lies in the models folder stands in the catalogue, and stays known while its disk is away."""

from __future__ import annotations

import os
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from sqlalchemy import update

from shared.db import sessions as database
from shared.db.sessions import transact
from shared.db.tables import ModelFile
from shared.models import components, first_scan, recording
from shared.models.catalogue import Catalogue, Entry
from shared.models.components import Place
from shared.models.folders import ModelFolders
from shared.models.hashing import hashed
from shared.models.inspection import Inspection
from shared.models.scan import scan_lock
from shared.settings import Settings
from tests.support.checkpoints import inspected, located, write_tiny
from tests.support.queueing import Farmhand
from tests.support.statements import statements
from worker.render.inspector import Inspector
from worker.render.scanner import Scanner


@pytest.fixture
def worker(settings: Settings, sessions: database.Sessions) -> SimpleNamespace:
    """As much of a worker as a scan needs."""
    return SimpleNamespace(id=1, settings=settings, sessions=sessions)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look into files here: a child takes seconds to import what it needs, and these files are harmless."""

    class Here:
        def __call__(self, path: Path) -> Inspection:
            return inspected(path)

        def places(self, path: Path) -> dict[str, Place]:
            return located(path)

        def close(self) -> None:
            pass

    monkeypatch.setattr("worker.render.scanner.Inspector", Here)


@pytest.fixture(scope="module")
def child() -> Iterator[Inspector]:
    """The confined child that really looks into files, once for all tests that need it."""

    class Standing(Inspector):
        def close(self) -> None:
            pass

    yield (inspector := Standing())
    Inspector.close(inspector)


@pytest.fixture
def by_the_child(monkeypatch: pytest.MonkeyPatch, child: Inspector) -> None:
    monkeypatch.setattr("worker.render.scanner.Inspector", lambda: child)


def entries(sessions: database.Sessions) -> list[Entry]:
    return transact(sessions, Catalogue.read).entries()


def test_a_broken_file_is_recorded_as_unusable_with_its_reason(worker, sessions, in_process):
    (worker.settings.models / "broken.safetensors").write_bytes(b"not a checkpoint")
    Scanner(worker).run_once()
    (file,) = entries(sessions)
    assert (file.name, file.usable) == ("broken", False)
    assert file.reason


def test_a_hostile_file_keeps_no_other_out_of_the_catalogue(worker, sessions, in_process):
    models = worker.settings.models
    write_tiny(models / "good.safetensors")
    weights = safetensors.torch.load_file(models / "good.safetensors")
    figures = (models / "good.yaml").read_text()
    save(weights | {"model.diffusion_model.\x00": torch.zeros(1)}, models / "name.safetensors", figures)
    save(weights, models / "figure.safetensors", figures.replace("image_size: 8", "image_size: 0"))
    save(weights, models / "nested.safetensors", "[" * 5000)
    Scanner(worker).run_once()
    assert {file.name: file.usable for file in entries(sessions)} == {
        "good": True, "name": False, "figure": False, "nested": False,
    }  # fmt: skip


def save(weights: dict[str, torch.Tensor], path: Path, figures: str) -> None:
    safetensors.torch.save_file(weights, path)
    path.with_suffix(".yaml").write_text(figures)


def test_a_file_that_exhausts_or_ends_its_reader_is_named_and_the_others_go_on(worker, sessions, by_the_child):
    models = worker.settings.models
    bomb = b"\x80\x02(" + b"".join(
        b"c__builtin__\nbytearray\nJ" + struct.pack("<i", 1_500_000_000) + b"\x85R" for _ in range(5)
    )
    with zipfile.ZipFile(models / "bytes.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bomb + b"t.")
        archive.writestr("a/version", "3\n")
    with zipfile.ZipFile(models / "deflated.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**7))
    length = 2**25 + 1
    (models / "many.safetensors").write_bytes(struct.pack("<Q", length) + b"{" + b" " * (length - 2) + b"}")
    os.mkfifo(models / "pipe.safetensors")
    (models / "zero.ckpt").symlink_to("/dev/zero")
    write_tiny(models / "good.safetensors")
    Scanner(worker).run_once()
    found = {file.path: file.reason for file in entries(sessions)}
    assert found.pop("good.safetensors") is None
    assert "compressed records" in found.pop("bytes.ckpt")
    assert "compressed records" in found.pop("deflated.ckpt")
    assert "header would be" in found.pop("many.safetensors")
    assert "is a pipe" in found.pop("pipe.safetensors")
    assert "is a device" in found.pop("zero.ckpt")
    assert not found


@pytest.mark.nightly
def test_a_file_that_needs_more_memory_than_it_may_is_struck_and_the_rest_goes_on(worker, sessions):
    models = worker.settings.models
    with zipfile.ZipFile(models / "memo.ckpt", "w") as archive:  # an index of 2 ** 31 is a table of 34 GB
        archive.writestr("a/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")
    (models / "then.ckpt").write_bytes(b"")
    Scanner(worker).run_once()
    assert {file.path: file.reason for file in entries(sessions)} == {
        "memo.ckpt": "takes more memory to read than a model file may: replace it",
        "then.ckpt": "the file is empty",
    }


def test_the_networks_of_a_file_are_recorded_with_the_digest_of_each_one_by_the_child(worker, sessions, by_the_child):
    path = write_tiny(worker.settings.models / "base.safetensors")
    Scanner(worker).run_once()
    (file,) = transact(sessions, recording.recorded).values()
    assert file.components
    assert components.read(file.components, file.weights_sha256) == hashed(path, located(path))[1]
    assert all(one["digest"] for one in file.components["networks"].values())


def test_other_weights_that_a_worker_of_the_version_before_records_have_no_networks(worker, sessions, in_process):
    write_tiny(worker.settings.models / "base.safetensors")
    scan = Scanner(worker)
    scan.run_once()
    with sessions.begin() as session:
        session.execute(update(ModelFile).values(weights_sha256="o" * 64))
    (seen,) = recording.remembered(transact(sessions, recording.recorded))
    assert seen.components is None


def test_a_file_that_is_gone_leaves_the_catalogue(worker, sessions, in_process):
    for name in ("broken", "other"):
        (worker.settings.models / f"{name}.ckpt").write_bytes(b"")
    scan = Scanner(worker)
    scan.run_once()
    (worker.settings.models / "broken.ckpt").unlink()
    scan.run_once()
    assert [file.name for file in entries(sessions)] == ["other"]


def test_while_the_models_folder_is_away_the_catalogue_stays(worker, sessions, in_process, tmp_path: Path):
    (worker.settings.models / "broken.ckpt").write_bytes(b"")
    scan = Scanner(worker)
    scan.run_once()
    worker.settings.models.first.rename(tmp_path / "away")
    scan.run_once()
    assert [file.name for file in entries(sessions)] == ["broken"]
    worker.settings.models.first.mkdir()  # an empty place where the disk would be mounted
    scan.run_once()
    assert [file.name for file in entries(sessions)] == ["broken"]


def test_while_one_of_several_folders_is_away_its_files_stay(worker, settings, sessions, in_process, tmp_path: Path):
    away = tmp_path / "two"
    away.mkdir()
    worker.settings = settings.model_copy(update={"models": ModelFolders((settings.models.first, away))})
    (settings.models / "here.ckpt").write_bytes(b"")
    (away / "there.ckpt").write_bytes(b"")
    scan = Scanner(worker)
    scan.run_once()
    (settings.models / "later.ckpt").write_bytes(b"")
    away.rename(tmp_path / "unmounted")
    scan.run_once()
    assert {file.name for file in entries(sessions)} == {"here", "there", "later"}
    (tmp_path / "unmounted").rename(away)
    (away / "there.ckpt").rename(away / "called otherwise.ckpt")
    scan.run_once()
    assert {file.name for file in entries(sessions)} == {"here", "called otherwise", "later"}


def test_a_first_look_that_takes_several_turns_goes_on_soon_and_is_noted_when_it_is_whole(
    worker, settings, sessions, in_process
):
    Farmhand(sessions).worker()
    worker.settings = settings.model_copy(update={"rescan_seconds": 1e-9})  # one file is hashed a turn
    for name in ("a", "b", "c"):
        write_tiny(settings.models / f"{name}.safetensors")
    scan = Scanner(worker)
    for found in (1, 2):
        assert scan.run_once() == pytest.approx(1.0)
        assert len(entries(sessions)) == found
        assert transact(sessions, first_scan.is_awaited)
    assert scan.run_once() is None
    assert len(entries(sessions)) == 3
    assert not transact(sessions, first_scan.is_awaited)


def test_a_scan_reads_the_catalogue_once_however_much_it_finds(worker, sessions, in_process):
    for name in ("a", "b", "c"):
        write_tiny(worker.settings.models / f"{name}.safetensors")
    scan = Scanner(worker)
    for _ in range(2):  # all is new, then nothing is
        with statements(sessions) as sent:
            scan.run_once()
        assert len([one for one in sent if re.search(r"FROM model_files\s*$", one)]) == 1
    assert len(entries(sessions)) == 3


def test_a_folder_that_another_farm_scans_is_looked_at_as_soon_as_it_is_free(worker, settings, sessions, in_process):
    write_tiny(settings.models / "a.safetensors")
    scan = Scanner(worker)
    with scan_lock(settings.models) as is_sole:
        assert is_sole
        assert scan.run_once() == pytest.approx(1.0)
    assert scan.run_once() is None
    assert len(entries(sessions)) == 1
