"""A worker is killed with kill -9 in mid-render: the image is rendered by the other one, once."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image as Picture
from sqlalchemy import select

from shared.db.tables import History, Worker
from shared.media.storage import Storage, key
from shared.messaging.events import Events
from shared.models.catalogue import Catalogue
from tests.support.checkpoints import write_tiny
from tests.support.waiting import until
from tests.support.workers import images, kill, ready, started, states


@pytest.mark.timeout(600)  # two engines start, on whatever machine this is
def test_a_picture_survives_the_death_of_its_worker(environ, settings, sessions, job_factory, farm_id):
    write_tiny(settings.models / "tiny.safetensors")
    slow_to_bury = {**environ, "FARM_LEASE_SECONDS": "600", "FARM_GPUS": "cpu:2", "FARM_SLOTS": "1"}
    events = Events(settings.redis, farm_id)
    with started(slow_to_bury, module="worker"):
        workers = {worker.id: worker for worker in until(lambda: ready(sessions, 2), seconds=150)}
        [file] = until(lambda: _usable(sessions), seconds=150)
        job = job_factory(checkpoint=file.sha256, steps=60, width=128, height=128)
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


def _usable(sessions):
    with sessions() as session:
        return Catalogue.read(session).usable()


def _step(events, job):
    progress = events.progress(job.id)
    return progress[0].step if progress else 0


def _broken_calls(sessions):
    with sessions() as session:
        return {count for told in session.scalars(select(Worker.broken_calls)) for count in told.values()}


def _history(sessions, image):
    with sessions() as session:
        return list(session.scalars(select(History.event).filter_by(image_id=image.id).order_by(History.id)))
