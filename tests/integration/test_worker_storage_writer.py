"""A storage that is away fails no image, costs no strike and no further render: finished pictures wait for it."""

from __future__ import annotations

import errno
import os
import weakref
from contextlib import contextmanager
from threading import Thread

import pytest
from sqlalchemy import select

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import Worker as Row
from shared.errors import OutOfMemory, StorageAway, StorageError
from shared.media import synced_files
from shared.media.storage import key
from shared.queue import transitions, workers
from tests.support.waiting import until
from tests.support.workers import TICKET, images, made, states
from worker import encode
from worker.dispatch import storage_writer
from worker.dispatch.claimer import Claimer
from worker.dispatch.slots import Slots
from worker.progress.reporter import Reporter


@pytest.fixture
def worker(settings, sessions):
    with made(settings, sessions) as worker:
        yield worker


@pytest.fixture
def slots(worker, monkeypatch):
    monkeypatch.setattr(storage_writer, "_LONGEST_PAUSE_SECONDS", 0.05)
    return Slots(
        worker,
        Claimer(worker),
        Reporter(worker.events),
        on_free=lambda: None,
        on_lost=lambda: pytest.fail("the card was lost"),
    )


@pytest.fixture
def away(monkeypatch):
    """Has every write fail with an error, until the end of the block."""

    @contextmanager
    def failing(number=errno.ENOSPC, of=lambda name: True):
        write = synced_files.write

        def fail(root, name, data):
            if of(name):
                raise OSError(number, os.strerror(number))
            write(root, name, data)

        with monkeypatch.context() as disk:
            disk.setattr(synced_files, "write", fail)
            yield

    return failing


@contextmanager
def spending(slots, count=1):
    """Slots that consume a ticket each; they are done at the end of the block."""
    threads = [Thread(target=slots.consume, kwargs={"was_passed": False}) for _ in range(count)]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE])
def out(away, request):
    """An outage of each kind, for the time of the block."""
    return away(request.param)


def test_a_picture_waits_for_the_storage_and_nothing_new_is_claimed(worker, slots, sessions, job_factory, out):
    changes = []
    slots.storage_writer._on_change = lambda: changes.append(worker.storage_away)
    job = job_factory(count=4, film=True)
    with spending(slots, 2):
        with out:
            until(lambda: worker.storage_away)
            until(lambda: sum(state == "running" for state in states(sessions)) == 2)
            assert not worker.takes_images
            slots.consume(was_passed=False)
            assert Claimer(worker).next(TICKET).claim is None
            assert worker.storage_away.startswith("the storage takes no pictures: ")
            assert worker.phase == worker.storage_away
            assert states(sessions).count("running") == 2
        until(lambda: worker.storage_away is None)
    assert changes[0] is not None
    assert changes[-1] is None
    with spending(slots, 2):
        pass
    assert [(image.state, image.attempt, image.strikes) for image in images(sessions)] == [("succeeded", 1, 0)] * 4
    for kind in ("picture", "thumbnail", "film", "strip"):
        assert worker.storage.exists(key(job.id, 0, 1, kind))


def test_a_picture_that_waits_for_the_storage_keeps_nothing_of_its_render(
    worker, slots, job_factory, away, monkeypatch
):
    class Run:
        def cancel(self): ...

    render, held = worker.card.render, []

    def rendering(claim, watch, cancel):
        run, rendered = Run(), render(claim, watch, cancel)
        cancel.then(run.cancel)
        held.extend(weakref.ref(one) for one in (run, rendered.pixels, rendered.frames[0].pixels))
        return rendered

    monkeypatch.setattr(worker.card, "render", rendering)
    job_factory(film=True)
    with spending(slots), away():
        until(lambda: worker.storage_away)
        assert [it() for it in held] == [None] * 3
    assert states(worker.sessions) == ["succeeded"]


def test_a_picture_that_waits_for_the_storage_can_be_cancelled(worker, slots, sessions, job_factory, away):
    job = job_factory()
    with away(), spending(slots):
        until(lambda: worker.storage_away)
        running = transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, job.id)).running
        worker.in_flight.cancel(running)
    assert states(sessions) == ["cancelled"]
    assert worker.free_slots == worker.slots
    assert worker.storage_away
    slots.storage_writer.run_once()  # no picture waits that would tell: it is looked at
    assert worker.storage_away is None


def test_a_storage_that_is_away_at_the_start_is_seen_before_anything_is_claimed(worker, slots, job_factory, away):
    job_factory()
    with away(errno.EROFS):
        slots.storage_writer.run_once()
    assert worker.storage_away == "the storage takes no pictures: it is read-only"
    assert Claimer(worker).next(TICKET).claim is None


def test_others_see_a_worker_whose_storage_is_away_as_one_that_takes_nothing(worker, sessions):
    worker.storage_away = "the storage takes no pictures: the disk is full"

    def beat(session):
        workers.heartbeat(
            session,
            worker.id,
            running={},
            state=worker.reported_state,
            phase=worker.phase,
            resident=[],
            load_seconds=None,
            lease_seconds=20,
        )
        return session.execute(select(Row.state, Row.phase)).one()

    assert tuple(transact(sessions, beat)) == ("drained", worker.storage_away)
    assert worker.as_policy_sees_it().state == "drained"
    worker.storage_away = None
    assert transact(sessions, beat).state == "ready"


def test_one_object_that_a_working_storage_refuses_is_no_outage(worker, slots, sessions, job_factory, away):
    job = job_factory()
    with away(errno.EACCES, of=lambda name: name.startswith("jobs/")):
        for state in ("queued", "queued", "failed"):
            slots.consume(was_passed=False)
            assert states(sessions) == [state]
    assert worker.storage_away is None
    [image] = images(sessions)
    assert (image.strikes, image.attempt) == (0, 3)
    assert "Permission denied" in image.reason
    transact(sessions, lambda session: transitions.retry(session, EVERYBODYS, job.id))
    slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded"]


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EMSGSIZE, errno.EIO])
def test_a_picture_too_large_for_a_storage_that_takes_others_is_no_outage(
    worker, slots, job_factory, monkeypatch, number
):
    write = synced_files.write

    def write_small(root, name, data):
        if len(data) > 10_000:
            raise OSError(number, os.strerror(number))
        write(root, name, data)

    monkeypatch.setattr(synced_files, "write", write_small)
    job_factory()
    monkeypatch.setattr(encode, "picture", lambda *_, **__: os.urandom(20_000))
    for state in ("queued", "queued", "failed"):
        slots.consume(was_passed=False)
        assert states(worker.sessions) == [state]
    assert worker.storage_away is None
    assert ("Input/output error" if number == errno.EIO else "too large for the storage") in images(worker.sessions)[
        0
    ].reason


def test_attempts_that_a_database_restored_from_a_backup_does_not_know_are_passed_over(
    worker, slots, sessions, job_factory
):
    job = job_factory()
    for attempt in (1, 2, 3, 4):
        worker.storage.put(key(job.id, 0, attempt, "picture"), b"of a job that this database has forgotten")
    slots.consume(was_passed=False)
    assert [(image.state, image.attempt) for image in images(sessions)] == [("queued", 4)]
    slots.consume(was_passed=False)
    assert [(image.state, image.attempt) for image in images(sessions)] == [("succeeded", 5)]
    assert worker.storage.get(key(job.id, 0, 4, "picture")) == b"of a job that this database has forgotten"


def test_a_source_picture_that_cannot_be_read_while_the_storage_is_away_costs_no_try(
    worker, slots, job_factory, away, monkeypatch
):
    def unread(*_):
        raise StorageAway("reading uploads/ab", "Input/output error")

    job_factory()
    worker.card.render = unread
    monkeypatch.setattr(worker.storage, "last_attempt", lambda *_: pytest.fail("a storage that is away was listed"))
    with away():
        slots.consume(was_passed=False)
        assert worker.storage_away
        for _ in range(4):
            slots.consume(was_passed=False)
    assert [(image.state, image.attempt, image.started_at) for image in images(worker.sessions)] == [
        ("queued", 1, None)
    ]
    del worker.card.render
    slots.storage_writer.run_once()
    slots.consume(was_passed=False)
    assert states(worker.sessions) == ["succeeded"]


def test_a_source_picture_that_a_working_storage_does_not_give_fails_after_three_tries(
    worker, slots, sessions, job_factory, monkeypatch
):
    def unread(*_):
        raise StorageAway("reading uploads/ab", "Permission denied")

    job_factory()
    monkeypatch.setattr(worker.card, "render", unread)
    for _ in range(3):
        slots.consume(was_passed=False)
    assert [(image.state, image.attempt) for image in images(sessions)] == [("failed", 3)]


def test_a_film_that_is_refused_costs_no_picture(worker, slots, sessions, job_factory, monkeypatch):
    put = worker.storage.put

    def refuse(name, data):
        if "film" in name:
            raise StorageError(f"storing {name}: there is another object of that name")
        put(name, data)

    monkeypatch.setattr(worker.storage, "put", refuse)
    job_factory(film=True)
    slots.consume(was_passed=False)
    assert states(sessions) == ["succeeded"]


@pytest.mark.parametrize("has_company", [False, True])
def test_an_image_that_ran_out_of_memory_is_left_to_another_worker_where_there_is_one(
    worker, slots, settings, sessions, job_factory, *, has_company
):
    def burst(*_):
        raise OutOfMemory("the card cannot hold one row")

    job_factory()
    small = job_factory(width=32, height=32)
    worker.card.render = burst
    if has_company:
        with made(settings, sessions) as other:
            transact(sessions, lambda session: session.get(Row, other.id).__setattr__("state", "ready"))
    slots.consume(was_passed=False)
    taken = slots._claimer.next(TICKET).claim
    assert (taken.job_id == small.id) is has_company
