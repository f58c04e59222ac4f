from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import update

from shared.db.sessions import transact
from shared.db.tables import Job, ModelFile
from shared.errors import ModelFileAway, ModelFileError, NotUnderstood
from shared.models import recording
from shared.models.folders import ModelFolders
from shared.models.inspection import Inspection
from shared.models.scan import scan
from shared.params.render import RenderParams
from tests.support.queueing import Farmhand
from tests.support.statements import statements
from worker.render import local_models
from worker.render.local_models import LocalModels


@pytest.fixture
def file(settings, sessions):
    path = settings.models / "demo.safetensors"
    path.write_bytes(b"weights")
    seen = scan(settings.models, [], lambda _: Inspection("checkpoint", "sd1", 512))
    transact(sessions, lambda session: recording.record(session, seen))
    return seen[0]


def test_a_checkpoint_is_found_by_its_hash(settings, sessions, file):
    found = LocalModels(sessions, settings.models).find(file.sha256)
    assert (found.name, found.path, found.bytes) == ("demo", settings.models / "demo.safetensors", 7)


def test_a_file_is_found_in_whichever_models_folder_has_it(settings, sessions, tmp_path):
    models = ModelFolders((settings.models.first, tmp_path / "two"))
    for number, path in enumerate((settings.models.first / "a.ckpt", tmp_path / "two/a.ckpt", tmp_path / "two/b.ckpt")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"weights {number}".encode())
    seen = scan(models, [], lambda _: Inspection("checkpoint", "sd1", 512))
    transact(sessions, lambda session: recording.record(session, seen))
    files = LocalModels(sessions, models)
    paths = {files.find(file.sha256).path for file in seen}
    assert paths == {settings.models.first / "a.ckpt", tmp_path / "two/a.ckpt", tmp_path / "two/b.ckpt"}
    (tmp_path / "two/b.ckpt").rename(settings.models / "b.ckpt")
    moved = next(file for file in seen if file.path == "b.ckpt")
    assert files.find(moved.sha256).path == settings.models.first / "b.ckpt"


@pytest.mark.parametrize("belongs", ["demo.safetensors", "demo.yaml"])
def test_a_checkpoint_that_was_only_touched_is_found(settings, sessions, file, belongs):
    (settings.models / belongs).touch()
    os.utime(settings.models / belongs)
    plain = Inspection("checkpoint", "sd1", 512)
    assert LocalModels(sessions, settings.models, lambda _: plain).find(file.sha256).name == "demo"


def test_a_checkpoint_that_has_other_contents_here_is_left_to_others(settings, sessions, file):
    (settings.models / "demo.safetensors").write_bytes(b"changed")
    with pytest.raises(ModelFileAway, match=r"demo\.safetensors is not in") as raised:
        LocalModels(sessions, settings.models).find(file.sha256)
    assert raised.value.sha256 == file.sha256


def test_a_checkpoint_that_is_gone_for_the_farm_too_cannot_be_used(settings, sessions, file):
    (settings.models / "demo.safetensors").unlink()
    files = LocalModels(sessions, settings.models)
    with pytest.raises(ModelFileAway):
        files.find(file.sha256)
    for expected in (ModelFileAway, ModelFileError):  # nothing found may mean no disk; found gone, it may come back
        age(sessions)
        transact(sessions, lambda session: recording.record(session, []))
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
    files, hashed, together = LocalModels(sessions, settings.models), [], Barrier(4)
    hash_file = local_models.sha256
    monkeypatch.setattr(local_models, "sha256", lambda path: hashed.append(path) or hash_file(path))

    def find(_):
        together.wait(10)
        return files.find(file.sha256).name

    with ThreadPoolExecutor(4) as slots:
        assert set(slots.map(find, range(4))) == {"demo"}
    assert len(hashed) == 1


def test_an_unknown_hash_is_named_with_its_kind(settings, sessions):
    files = LocalModels(sessions, settings.models)
    with pytest.raises(ModelFileError, match="the checkpoint aaaaaaaaaa is not in"):
        files.find("a" * 64)
    with pytest.raises(ModelFileError, match="the ControlNet aaaaaaaaaa is not in"):
        files.find("a" * 64, "controlnet")


def test_a_file_that_only_a_newer_version_can_load_is_left_to_it(sessions, tmp_path, checkpoint_factory):
    newer = checkpoint_factory("large", architecture="sd9")
    with pytest.raises(NotUnderstood, match="sd9") as raised:
        LocalModels(sessions, ModelFolders((tmp_path,))).find(newer.sha256)
    assert raised.value.what == "the architecture sd9 of large"


def described(settings, sessions, *texts):
    """Record checkpoints of the same weights, each with a description of its own, and return what a scan saw."""
    for text in texts:
        (settings.models / f"{text}.safetensors").write_bytes(b"weights")
        (settings.models / f"{text}.yaml").write_text(text)
    seen = scan(settings.models, [], looked_into)
    transact(sessions, lambda session: recording.record(session, seen))
    return seen


def looked_into(path):
    return Inspection("checkpoint", "sd1", 512, description=path.with_suffix(".yaml").read_text())


def test_an_image_that_names_weights_alone_finds_the_one_checkpoint_that_has_them(settings, sessions):
    (seen,) = described(settings, sessions, "v")
    files = LocalModels(sessions, settings.models, looked_into)
    assert seen.sha256 != seen.weights
    assert (files.find(seen.weights).name, files.find(seen.weights).sha256) == ("v", seen.sha256)
    assert files.named_by(1, RenderParams(), seen.weights).vae is None
    os.utime(settings.models / "v.yaml")
    assert files.find(seen.weights).sha256 == seen.sha256
    described(settings, sessions, "epsilon")
    with pytest.raises(ModelFileError, match="is not in"):
        files.find(seen.weights)


ROLES = {
    "checkpoint": {},
    "the built-in VAE": {"vae": "none"},
    "a named VAE": {"vae": "paint [{paint}]"},
    "a refiner": {"refiner": {"checkpoint": "second [{second}]"}},
    "a second pass": {"hires": {"scale": 2.0, "checkpoint": "second [{second}]"}},
}


@pytest.mark.parametrize("role", ROLES)
def test_the_catalogue_is_read_once_for_all_images_of_a_job_without_a_model_set(
    sessions, tmp_path, checkpoint_factory, job_factory, role
):
    base, second = (checkpoint_factory(name, has_vae=True).sha256 for name in ("base", "second"))
    paint = checkpoint_factory("paint", kind="vae", architecture=None).sha256
    titles = json.dumps(ROLES[role]).replace("{second}", second[:10]).replace("{paint}", paint[:10])
    older = job_factory(checkpoint=base, count=3, **json.loads(titles))
    forget = update(Job).where(Job.id == older.id).values(models=None)
    transact(sessions, lambda session: session.execute(forget))
    worker, files = Farmhand(sessions).worker(), LocalModels(sessions, ModelFolders((tmp_path,)))
    claims = [worker.claim() for _ in range(3)]
    assert [claim.models for claim in claims] == [None] * 3

    with statements(sessions) as first:
        found = files.named_by(older.id, claims[0].params, claims[0].checkpoint)
    with statements(sessions) as later:
        assert [files.named_by(older.id, claim.params, claim.checkpoint) for claim in claims] == [found] * len(claims)

    expected = {
        "a named VAE": {"vae": paint},
        "a refiner": {"refiner": second},
        "a second pass": {"hires": second},
    }
    assert found.to_stored() == {"checkpoint": base} | expected.get(role, {})
    assert first
    assert not later


def test_another_job_without_a_model_set_has_its_names_looked_up_again(sessions, tmp_path, checkpoint_factory):
    base, files = checkpoint_factory("base", has_vae=True), LocalModels(sessions, ModelFolders((tmp_path,)))
    params = RenderParams(vae="paint")
    with pytest.raises(ModelFileError, match="paint names no vae"):
        files.named_by(1, params, base.sha256)
    first = checkpoint_factory("paint", kind="vae", architecture=None).sha256
    assert files.named_by(1, params, base.sha256).vae == first, "a failure is not remembered"
    renamed = update(ModelFile).where(ModelFile.sha256 == first).values(name="other", path="other.safetensors")
    transact(sessions, lambda session: session.execute(renamed))
    newer = checkpoint_factory("paint", kind="vae", architecture=None, sha256="e" * 64).sha256
    assert files.named_by(1, params, base.sha256).vae == first
    assert files.named_by(2, params, base.sha256).vae == newer


def test_a_touched_file_is_looked_into_only_where_its_weights_are_those_known(settings, sessions):
    (seen,) = described(settings, sessions, "v")
    looked = []
    files = LocalModels(sessions, settings.models, lambda path: looked.append(path) or looked_into(path))
    (settings.models / "v.safetensors").write_bytes(b"changed")
    with pytest.raises(ModelFileAway):
        files.find(seen.sha256)
    assert not looked
    (settings.models / "v.safetensors").write_bytes(b"weights")
    assert files.find(seen.sha256).name == "v"
    (settings.models / "v.yaml").write_text("epsilon")
    with pytest.raises(ModelFileAway):
        files.find(seen.sha256)


def test_a_touched_file_is_looked_into_in_a_process_of_its_own(settings, sessions, monkeypatch):
    (seen,) = described(settings, sessions, "v")
    os.utime(settings.models / "v.safetensors")
    monkeypatch.setattr("worker.render.local_models.Inspector", Here)
    assert LocalModels(sessions, settings.models).find(seen.sha256).name == "v"


class Here:
    """Inspects files without a child."""

    def __call__(self, path):
        return looked_into(path)

    def close(self): ...
