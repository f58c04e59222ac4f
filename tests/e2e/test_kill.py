"""A worker is killed with kill -9 in mid-render: the image is rendered by the other one, once."""

from __future__ import annotations

from contextlib import closing
from io import BytesIO

import pytest
import torch
from PIL import Image as Picture
from safetensors.torch import save_file
from sqlalchemy import select

from shared.db.tables import History, Worker
from shared.media.storage import Storage, key
from shared.messaging.events import Events
from shared.models.catalogue import Catalogue
from shared.models.model_set import Merge, ModelSet
from tests.support import lora_files, preloaded
from tests.support.checkpoints import write_tiny
from tests.support.waiting import until
from tests.support.workers import images, kill, ready, started, states
from worker.engine.devices import device
from worker.engine.loading.load import load


@pytest.mark.timeout(600)  # two engines start, on whatever machine this is
def test_a_picture_survives_the_death_of_its_worker(environ, settings, sessions, job_factory, farm_id):
    _write_models(settings.models)
    slow_to_bury = {**environ, "FARM_LEASE_SECONDS": "600", "FARM_GPUS": "cpu:2", "FARM_SLOTS": "1"}
    events = Events(settings.redis, farm_id)
    with (
        closing(preloaded.Parent("-W", "error", modules=preloaded.ENGINE)) as parent,
        started(slow_to_bury, module="worker", parent=parent),
    ):
        workers = {worker.id: worker for worker in until(lambda: ready(sessions, 2), seconds=150)}
        files = until(lambda: _usable(sessions, {"tiny", "ink", "full"}), seconds=150)
        adapters, merges = {"lora:ink": files["ink"]}, (Merge(sha256=files["full"], unet=0.1),)
        models = ModelSet(checkpoint=files["tiny"], adapters=adapters, merges=merges)
        job = job_factory(
            prompt="sea <lora:ink:0.1>", checkpoint=files["tiny"], models=models, steps=60, width=128, height=128
        )
        until(lambda: _step(events, job) > 5, seconds=90, what="mid-render")
        dead = workers[images(sessions)[0].worker_id]
        kill(dead.pid)
        until(lambda: states(sessions) == ["succeeded"], seconds=90)
        assert _broken_calls(sessions) == {0}, "the picture would have come out nevertheless, row by row"
    events.close()
    [image] = images(sessions)
    assert (image.attempt, image.strikes) == (2, 1)
    assert image.worker != dead.name
    assert _history(sessions, image) == ["claimed", "given back", "claimed", "finished"]
    storage = Storage(settings.storage)
    assert not storage.exists(key(job.id, 0, 1, "picture"))
    with Picture.open(BytesIO(storage.get(key(job.id, 0, 2, "picture")))) as rendered:
        assert rendered.size == (128, 128)


def _write_models(folder):
    """Write a checkpoint, an adapter that its rows have, and one that is merged into it."""
    weights = load(write_tiny(folder / "tiny.safetensors"), device("cpu"), torch.float32)
    (folder / "Lora").mkdir()
    save_file(lora_files.kohya(lora_files.drawn(weights)), folder / "Lora" / "ink.safetensors")
    save_file(
        {"lora_unet_conv_in.diff": torch.ones(weights.unet.conv_in.weight.shape)}, folder / "Lora" / "full.safetensors"
    )


def _usable(sessions, names):
    """Return the SHA-256 of each model file by its name; none until all of `names` can be used."""
    with sessions() as session:
        known = Catalogue.read(session)
        found = {file.name: file.sha256 for kind in ("checkpoint", "lora") for file in known.usable(kind)}
    return found if found.keys() == names else {}


def _step(events, job):
    progress = events.progress(job.id)
    return progress[0].step if progress else 0


def _broken_calls(sessions):
    with sessions() as session:
        return {count for told in session.scalars(select(Worker.broken_calls)) for count in told.values()}


def _history(sessions, image):
    with sessions() as session:
        return list(session.scalars(select(History.event).filter_by(image_id=image.id).order_by(History.id)))
