"""The sweep over a real database and a real folder."""

from __future__ import annotations

import pytest

from shared.database import transact
from shared.errors import StorageError
from shared.queue import moves
from shared.storage import job_prefix, key
from shared.sweep import sweep
from tests.workers import made
from worker.sweep import Sweep


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions) as worker:
        yield worker


def picture(job, index=0):
    return key(job.id, index, 1, "picture")


def test_a_picture_that_came_after_its_job_was_deleted_is_swept_and_no_other(worker, sessions, job_factory):
    gone, here = job_factory(), job_factory()
    foreign = f"{job_prefix(900_000)}/900000-0000-1.png"  # of no job that this database remembers
    transact(sessions, lambda session: moves.delete(session, gone.id))
    for stored in (picture(gone), picture(here), foreign):
        worker.storage.put(stored, b"picture")
    assert sweep(sessions, worker.storage) == [gone.id]
    assert [worker.storage.exists(stored) for stored in (picture(gone), picture(here), foreign)] == [False, True, True]
    assert sweep(sessions, worker.storage) == []


def test_one_worker_sweeps_for_all_within_an_hour(worker, sessions, job_factory):
    for is_left in (False, True):
        gone = job_factory()
        transact(sessions, lambda session, gone=gone: moves.delete(session, gone.id))
        worker.storage.put(picture(gone), b"picture")
        Sweep(worker).turn()
        assert worker.storage.exists(picture(gone)) is is_left


def test_a_sweep_that_failed_leaves_the_hour_to_the_next_one(worker, sessions, job_factory, monkeypatch):
    def away():
        raise StorageError("no route")

    gone = job_factory()
    transact(sessions, lambda session: moves.delete(session, gone.id))
    worker.storage.put(picture(gone), b"picture")
    with monkeypatch.context() as storage:
        storage.setattr(worker.storage, "jobs", away)
        Sweep(worker).turn()
    Sweep(worker).turn()
    assert not worker.storage.exists(picture(gone))
