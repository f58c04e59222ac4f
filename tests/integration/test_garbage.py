"""The sweep over a real database and a real folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import Image
from shared.maintenance.garbage import collect_attempts, collect_jobs
from shared.media.storage import Storage, job_prefix, key
from shared.queue import transitions
from tests.support.queueing import Farmhand


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path / "pictures"))


@pytest.fixture
def farm(sessions):
    return Farmhand(sessions)


def picture(job, index=0, attempt=1):
    return key(job.id, index, attempt, "picture")


def put(storage, *keys):
    for one in keys:
        storage.put(one, b"picture")


def left(storage):
    return [one.name for shelf in storage.objects() for one in shelf]


def test_a_picture_that_came_after_its_job_was_deleted_is_swept_and_no_other(storage, sessions, job_factory):
    gone, here = job_factory(), job_factory()
    foreign = f"{job_prefix(900_000)}/900000-0000-1.png"  # of no job that this database remembers
    transact(sessions, lambda session: transitions.delete(session, EVERYBODYS, gone.id))
    put(storage, picture(gone), picture(here), foreign)
    assert collect_jobs(sessions, storage) == [gone.id]
    assert left(storage) == [picture(here), foreign]
    assert collect_jobs(sessions, storage) == []


def test_what_may_be_committed_stays_and_what_was_is_kept(storage, sessions, farm, job_factory):
    running, done = job_factory(), job_factory()
    worker = farm.worker()
    claims = {claim.job_id: claim for claim in (worker.claim(), worker.claim())}
    farm.finish(claims[done.id])
    put(storage, picture(running), key(running.id, 0, 1, "thumbnail"), picture(done), key(done.id, 0, 1, "film"))
    before = left(storage)
    assert collect_attempts(sessions, storage) == 0
    assert left(storage) == before
    assert len(before) == 4


def test_what_an_attempt_left_that_was_given_back_is_swept_before_and_after_the_next_one(
    storage, sessions, farm, job_factory
):
    job = job_factory()
    lost = farm.worker()
    lost.claim()
    put(storage, picture(job), key(job.id, 0, 1, "thumbnail"))
    lost.mark_dead()
    assert collect_attempts(sessions, storage) == 2
    put(storage, picture(job))  # a slot that does not know yet
    second = farm.worker().claim()
    put(storage, picture(job, attempt=2))
    assert collect_attempts(sessions, storage) == 1
    farm.finish(second)
    assert collect_attempts(sessions, storage) == 0
    assert left(storage) == [picture(job, attempt=2)]


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_what_an_image_left_that_ended_without_a_picture_is_swept(storage, sessions, farm, job_factory, end):
    job = job_factory()
    claim = farm.worker().claim()
    put(storage, picture(job))
    if end == "failed":
        farm.run(transitions.fail, claim, "no reason")
    else:
        farm.run(transitions.cancel, EVERYBODYS, job.id)
    assert farm.images(job.id)[0].state == end
    assert collect_attempts(sessions, storage) == 1
    assert left(storage) == []


def test_what_was_claimed_after_the_sweep_looked_and_what_nobody_knows_stays(storage, sessions, farm, job_factory):
    job = job_factory()
    known = [picture(job, attempt=1), picture(job, index=7), key(900_000, 0, 1, "picture")]
    put(storage, *known)  # attempt 1 of an image that has had none: its claim is committed, and the row read before
    assert collect_attempts(sessions, storage) == 0
    assert left(storage) == sorted(known)


def test_what_a_killed_process_left_half_written_is_swept_with_its_attempt(storage, sessions, farm, job_factory):
    job = job_factory()
    worker = farm.worker()
    worker.claim()
    put(storage, picture(job))
    half = Path(storage.url, job_prefix(job.id), f".{job.id}-0000-1.webp.{'0' * 32}.tmp")
    half.touch()
    assert collect_attempts(sessions, storage) == 0
    worker.mark_dead()
    assert collect_attempts(sessions, storage) == 2
    assert not half.exists()


def test_every_batch_of_a_large_shelf_is_looked_at(storage, sessions, job_factory, monkeypatch):
    monkeypatch.setattr("shared.maintenance.garbage._BATCH", 2)
    job = job_factory(count=5)
    put(storage, *(picture(job, index) for index in range(5)))
    kept = update(Image).where(Image.job_id == job.id, Image.index != 3).values(attempt=1, state="succeeded")
    lost = update(Image).where(Image.job_id == job.id, Image.index == 3).values(attempt=2)
    transact(sessions, lambda session: (session.execute(kept), session.execute(lost)))
    assert collect_attempts(sessions, storage) == 1
    assert left(storage) == [picture(job, index) for index in (0, 1, 2, 4)]
    assert transact(sessions, lambda session: len(session.scalars(select(Image.id)).all())) == 5
