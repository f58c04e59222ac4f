"""Deletion of old jobs, if that is set, and of old lines of history."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import History, Image, Job
from shared.errors import StorageError, TooSlow, Unavailable
from shared.maintenance.garbage import collect_jobs
from shared.maintenance.retention import _delete, delete_jobs, forget_history
from shared.media.storage import Storage, key
from shared.queue import transitions


@pytest.fixture
def storage(tmp_path):
    return Storage(str(tmp_path / "pictures"))


@pytest.fixture
def old_job(sessions, storage, job_factory):
    """A cancelled job that ended so many days ago, with a picture."""

    def make(days: int) -> Job:
        job = job_factory()
        storage.put(picture(job), b"picture")
        aged = update(Job).where(Job.id == job.id).values(ended_at=func.now() - timedelta(days=days))
        transact(sessions, lambda session: (transitions.cancel(session, EVERYBODYS, job.id), session.execute(aged)))
        return job

    return make


def picture(job):
    return key(job.id, 0, 1, "picture")


def jobs(sessions):
    return transact(sessions, lambda session: session.scalars(select(Job.id).order_by(Job.id)).all())


def lines(sessions):
    return transact(sessions, lambda session: session.scalars(select(History.event).order_by(History.id)).all())


def age_history(sessions, days):
    aged = update(History).values(at=func.now() - timedelta(days=days))
    transact(sessions, lambda session: session.execute(aged))


def test_jobs_that_ended_long_ago_go_with_their_pictures(sessions, storage, old_job, job_factory, monkeypatch):
    monkeypatch.setattr("shared.maintenance.retention._BATCH", 2)
    old = [old_job(11) for _ in range(5)]
    young, is_open = old_job(9), job_factory()
    assert delete_jobs(sessions, storage, 10) == 5
    assert jobs(sessions) == [young.id, is_open.id]
    assert [storage.exists(picture(job)) for job in (*old, young)] == [False] * 5 + [True]
    assert delete_jobs(sessions, storage, 10) == 0


def test_a_job_that_is_retried_after_it_was_found_stays(sessions, storage, old_job, monkeypatch):
    job = old_job(11)

    def retried_first(factory, work):
        found = transact(factory, work)
        if found == [job.id]:
            transact(sessions, lambda session: transitions.retry(session, EVERYBODYS, job.id))
        return found

    monkeypatch.setattr("shared.maintenance.retention.transact", retried_first)
    assert delete_jobs(sessions, storage, 10) == 0
    assert jobs(sessions) == [job.id]
    assert storage.exists(picture(job))


def test_a_job_that_takes_too_long_is_left_to_the_next_time(sessions, storage, old_job, monkeypatch, capsys):
    first, held, last = (old_job(11) for _ in range(3))

    def impatient(session, **given):
        session.execute(text("SET LOCAL lock_timeout = 50"))
        return _delete(session, **given)

    monkeypatch.setattr("shared.maintenance.retention._delete", impatient)
    with sessions() as session:
        session.execute(select(Image.id).where(Image.job_id == held.id).with_for_update())
        assert delete_jobs(sessions, storage, 10) == 2
        session.rollback()
    assert jobs(sessions) == [held.id]
    assert [storage.exists(picture(job)) for job in (first, held, last)] == [False, True, False]
    assert f"job={held.id}" in capsys.readouterr().out
    assert delete_jobs(sessions, storage, 10) == 1


def test_jobs_that_take_too_long_one_after_the_other_end_it(sessions, storage, old_job, monkeypatch, capsys):
    first, *others = (old_job(11) for _ in range(7))
    quick, asked = {first.id, others[2].id}, []

    def slow(session, job_id, days):
        asked.append(job_id)
        if job_id not in quick:
            raise TooSlow("slow")
        return _delete(session, job_id, days)

    monkeypatch.setattr("shared.maintenance.retention._delete", slow)
    assert delete_jobs(sessions, storage, 10) == 2
    assert asked == [first.id, *(job.id for job in others)]
    quick.clear()
    asked.clear()
    assert delete_jobs(sessions, storage, 10) == 0
    assert asked == [others[0].id, others[1].id, others[3].id]
    assert capsys.readouterr().out.count("old jobs not deleted: the database is slow") == 2


def test_a_database_that_is_away_ends_it(sessions, storage, old_job, monkeypatch):
    old_job(11)

    def away(*_, **__):
        raise Unavailable("away")

    monkeypatch.setattr("shared.maintenance.retention._delete", away)
    with pytest.raises(Unavailable):
        delete_jobs(sessions, storage, 10)


def test_pictures_that_cannot_be_deleted_now_are_left_to_the_sweep(sessions, storage, old_job, monkeypatch):
    def away(prefix):
        raise StorageError("no route")

    job = old_job(11)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "delete", away)
        assert delete_jobs(sessions, storage, 10) == 1
    assert storage.exists(picture(job))
    assert collect_jobs(sessions, storage) == [job.id]


def test_old_history_goes_but_not_of_open_jobs_nor_what_the_sweep_needs(
    sessions, storage, old_job, job_factory, monkeypatch
):
    monkeypatch.setattr("shared.maintenance.retention._BATCH", 2)
    old_job(11)
    gone = old_job(11)
    transact(sessions, lambda session: transitions.delete(session, EVERYBODYS, gone.id))
    job_factory()
    assert lines(sessions) == ["submitted", "cancelled"] * 2 + ["deleted", "submitted"]
    age_history(sessions, 91)
    job_factory()
    assert forget_history(sessions, 90) == 4
    assert lines(sessions) == ["deleted", "submitted", "submitted"]
    assert collect_jobs(sessions, storage) == [gone.id]


def test_history_of_an_empty_farm_and_a_young_one_stays(sessions, job_factory):
    assert forget_history(sessions, 90) == 0
    job_factory()
    age_history(sessions, 89)
    assert forget_history(sessions, 90) == 0
    assert lines(sessions) == ["submitted"]
    assert transact(sessions, lambda session: session.scalars(select(Image.state)).all()) == ["queued"]
