"""Makers of previews: the decoders of the catalogue, and the linear map wherever these do not help."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import safetensors.torch
import torch

from shared.db.sessions import transact
from shared.errors import OutOfMemory, RenderError, Unavailable
from shared.models import recording
from shared.models.catalogue import Catalogue
from shared.models.scan import scan
from tests.support.checkpoints import fitting_decoder, inspected, plain_sample, tiny_decoder, write_tiny
from worker.engine import devices
from worker.engine.images import previews
from worker.engine.loading import load
from worker.render.local_models import LocalModels
from worker.render.preview_decoders import PreviewDecoders

LATENT = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
CPU = devices.device("cpu:0")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint whose latents are the colours themselves."""
    path = write_tiny(tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors")
    return replace(load.load(path, CPU, torch.float32), sample=plain_sample())


class Folder:
    """The models folder, and a previewer of what lies in it."""

    def __init__(self, settings, sessions) -> None:
        self._models = settings.models
        self._sessions = sessions
        self.loads: list[str] = []
        self.files = LocalModels(sessions, settings.models)
        self.previewer = PreviewDecoders(self.files, self._load, 0.0)
        self.is_slow = False

    def _load(self, found):
        """Load at once, unless `is_slow`: then the test does what is `asked`."""
        self.loads.append(found.name)
        self.asked = partial(self._come, Future(), found.path)
        return self.asked.args[0] if self.is_slow else self.asked()

    def _come(self, asked, path):
        try:
            asked.set_result(load.load_decoder(path, CPU, torch.float32))
        except RenderError as error:
            asked.set_exception(error)
        return asked

    def write(self, name: str, content: dict[str, torch.Tensor]):
        path = self._models / "VAE-approx" / name
        path.parent.mkdir(exist_ok=True)
        torch.save(content, path) if path.suffix == ".pth" else safetensors.torch.save_file(content, path)
        return path

    def scan(self):
        """Record what lies in the folder, and return why each that is unusable is."""
        transact(self._sessions, lambda session: recording.record(session, scan(self._models, [], inspected)))
        files = transact(self._sessions, Catalogue.read).entries("decoder")
        return {file.name: file.reason for file in files}


@pytest.fixture
def folder(settings, sessions) -> Folder:
    return Folder(settings, sessions)


def shape(folder, weights):
    return folder.previewer.picture(LATENT, weights).shape


MAPPED, DECODED = (8, 8, 3), (64, 64, 3)


def test_without_a_decoder_the_map_makes_previews(folder, weights):
    assert np.array_equal(folder.previewer.picture(LATENT, weights), previews.mapped(LATENT, weights.latent_rgb))


@pytest.mark.parametrize("name", ["taesd_decoder.pth", "taesd_decoder.safetensors"])
def test_a_decoder_makes_them_from_when_it_is_found_until_it_is_gone(folder, weights, name):
    path = folder.write(name, fitting_decoder(plain_sample()))
    assert shape(folder, weights) == MAPPED
    assert folder.scan() == {"taesd_decoder": None}
    assert shape(folder, weights) == DECODED
    assert shape(folder, weights.tiled("x")) == DECODED
    assert folder.loads == ["taesd_decoder"]
    path.unlink()
    folder.write("other.ckpt", {})  # a folder of nothing may be a disk that is away
    folder.scan()
    assert shape(folder, weights) == MAPPED


def test_each_checkpoint_has_a_decoder_that_reads_its_latents(folder, weights):
    folder.write("a.safetensors", tiny_decoder())
    folder.write("b.safetensors", fitting_decoder(-plain_sample()))
    folder.write("c.safetensors", fitting_decoder(plain_sample()))
    folder.scan()
    turned = replace(weights, unet=torch.nn.Identity(), sample=-plain_sample())
    strange = replace(weights, unet=torch.nn.Identity(), sample=plain_sample().flip(0))
    red = torch.zeros(4, 8, 8)
    red[0] = 1
    shown, mirrored = folder.previewer.picture(red, weights), folder.previewer.picture(-red, turned)
    assert shown.shape == DECODED
    assert shown.mean(axis=(0, 1))[0] > 220
    assert np.abs(shown.astype(int) - mirrored).max() <= 1
    assert shape(folder, strange) == MAPPED
    assert folder.loads == ["a", "b", "c"]


def test_of_decoders_that_read_a_checkpoint_the_best_makes_its_previews(folder, weights):
    folder.write("a.safetensors", fitting_decoder(plain_sample() * 0.8 + 0.1))
    folder.write("b.safetensors", fitting_decoder(plain_sample()))
    folder.scan()
    shown = folder.previewer.picture(weights.sample, weights)
    known = previews.levels(previews.known_picture()).permute(1, 2, 0).numpy()
    assert np.abs(shown.astype(int) - known).mean() < 8


def test_a_file_that_is_broken_says_why_and_harms_no_preview(folder, weights):
    path = folder.write("taesd_decoder.pth", fitting_decoder(plain_sample()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    folder.write("taesd_encoder.pth", {"0.weight": torch.zeros(1), "1.conv.0.weight": torch.zeros(1)})
    reasons = folder.scan()
    assert "damaged" in reasons["taesd_decoder"]
    assert "encoder" in reasons["taesd_encoder"]
    assert shape(folder, weights) == MAPPED
    path.write_bytes(whole)
    assert folder.scan()["taesd_decoder"] is None
    assert shape(folder, weights) == DECODED


def test_a_file_that_breaks_after_the_scan_is_tried_once(folder, weights):
    path = folder.write("taesd_decoder.safetensors", fitting_decoder(plain_sample()))
    folder.scan()
    path.write_bytes(b"torn")
    assert [shape(folder, weights) for _ in range(3)] == [MAPPED] * 3


@pytest.mark.parametrize(
    ("error", "shapes"),
    [(RuntimeError("no kernel"), [MAPPED, MAPPED]), (torch.OutOfMemoryError("full"), [MAPPED, DECODED])],
)
def test_a_decoder_that_fails_is_used_no_more_unless_there_was_no_room(folder, weights, monkeypatch, error, shapes):
    folder.write("taesd_decoder.safetensors", fitting_decoder(plain_sample()))
    folder.scan()
    assert shape(folder, weights) == DECODED
    with monkeypatch.context() as patched:

        def fail(*_):
            raise error

        patched.setattr(previews, "decoded", fail)
        assert shape(folder, weights) == shapes[0]
    assert shape(folder, weights) == shapes[1]


def test_while_the_database_is_away_the_decoders_that_are_known_do(folder, weights, monkeypatch):
    folder.write("taesd_decoder.safetensors", fitting_decoder(plain_sample()))
    folder.scan()
    assert shape(folder, weights) == DECODED

    def away():
        raise Unavailable("the database is away")

    monkeypatch.setattr(folder.files, "decoders", away)
    assert shape(folder, weights) == DECODED


def test_the_map_makes_previews_until_a_decoder_has_come(folder, weights):
    folder.is_slow = True
    folder.write("taesd_decoder.safetensors", fitting_decoder(plain_sample()))
    folder.scan()
    assert [shape(folder, weights) for _ in range(3)] == [MAPPED] * 3
    folder.asked()
    assert shape(folder, weights) == DECODED
    assert folder.loads == ["taesd_decoder"]


def test_a_decoder_for_which_there_is_no_room_leaves_the_map(folder, weights, monkeypatch):
    folder.write("taesd_decoder.safetensors", fitting_decoder(plain_sample()))
    folder.scan()

    def full(*_):
        raise OutOfMemory("full")

    monkeypatch.setattr(load, "load_decoder", full)
    assert shape(folder, weights) == MAPPED


def test_the_map_alone_needs_no_catalogue(weights):
    assert PreviewDecoders(None, lambda _: None, 0.0).picture(LATENT, weights).shape == MAPPED
