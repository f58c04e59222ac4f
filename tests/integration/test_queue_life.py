"""Life and death of workers: leases, beats, burials, strikes. The clock is the database's, so leases are set in SQL."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text

from shared.accounts.scope import EVERYBODYS
from shared.db import sessions as database
from shared.db.tables import History, Worker
from shared.models import recording
from shared.models.catalogue import Catalogue
from shared.models.inspection import Inspection, Scanned
from shared.queue import reaper, transitions, workers
from shared.queue.reaper import MOST_CRASHES
from tests.support.queueing import Farmhand


@pytest.fixture
def hand(sessions: database.Sessions) -> Farmhand:
    return Farmhand(sessions)


def end_lease(sessions, worker):
    with sessions.begin() as session:
        session.execute(
            text("UPDATE workers SET lease_until = clock_timestamp() - interval '1 ms' WHERE id = :id"),
            {"id": worker.id},
        )


def uptime_seconds(sessions):
    with sessions() as session:
        return session.scalar(text("SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8"))


def test_a_worker_registers_as_starting_with_a_whole_lease(hand, sessions):
    worker = hand.worker(lease_seconds=20)

    with sessions() as session:
        row = session.get_one(Worker, worker.id)

    assert row.state == "starting"
    assert 19 < (row.lease_until - row.beat_at).total_seconds() < 21


def test_a_restart_is_a_new_worker(hand):
    first = hand.worker()
    first.mark_dead()

    assert hand.worker().id > first.id


def test_beat_renews_the_lease_and_records_what_the_worker_says(hand, sessions):
    worker = hand.worker(lease_seconds=20)
    end_lease(sessions, worker)

    worker.heartbeat(state="ready", phase="loading checkpoint, about 8 s", resident=["c" * 64], load_seconds=8.5)

    with sessions() as session:
        row = session.get_one(Worker, worker.id)
        assert (row.state, row.phase) == ("ready", "loading checkpoint, about 8 s")
        assert (row.resident, row.load_seconds) == (["c" * 64], 8.5)
        assert 19 < (row.lease_until - row.beat_at).total_seconds() < 21


def test_beat_tells_the_slots_once_they_are_known(hand, sessions):
    worker = hand.worker(slots=0)

    for told, known in ((None, 0), (12, 12), (None, 12)):
        worker.heartbeat(slots=told)
        with sessions() as session:
            assert session.get_one(Worker, worker.id).slots == known


def test_beat_of_a_worker_that_runs_what_sql_says_changes_nothing(hand, job_factory):
    job_factory()
    worker = hand.worker()
    claim = worker.claim()

    assert worker.heartbeat({claim.image_id: claim.attempt}) == workers.Heartbeat(drop=(), missing={})


def test_beat_drops_what_was_cancelled_and_what_another_attempt_has(hand, job_factory):
    job = job_factory(count=2)
    worker = hand.worker()
    first, second = worker.claim(), worker.claim()
    hand.run(transitions.cancel, EVERYBODYS, job.id, 0)
    hand.run(transitions.hand_back, worker.id, {second.image_id: 1})
    worker.claim()

    answer = worker.heartbeat({first.image_id: 1, second.image_id: 1})

    assert answer == workers.Heartbeat(drop=(first.image_id, second.image_id), missing={second.image_id: 2})


def test_beat_reports_what_the_worker_does_not_run(hand, job_factory):
    job_factory()
    worker = hand.worker()
    claim = worker.claim()

    assert worker.heartbeat({}) == workers.Heartbeat(drop=(), missing={claim.image_id: 1})


def test_beat_of_a_worker_that_was_declared_dead_is_none(hand):
    worker = hand.worker()
    worker.mark_dead()

    assert worker.heartbeat() is None


def test_mark_dead_gives_images_back_without_a_crash(hand, job_factory):
    job = job_factory(count=3)
    worker = hand.worker()
    worker.claim(), worker.claim()

    assert worker.mark_dead(crashed=False) == 2

    images = hand.images(job.id)
    assert [(image.state, image.worker_id, image.strikes) for image in images] == [("queued", None, 0)] * 3
    assert [image.attempt for image in images] == [1, 1, 0]
    assert worker.mark_dead() == 0


def test_mark_dead_after_a_crash_counts_against_each_image_it_ran_and_no_other(hand, job_factory):
    job = job_factory(count=3)
    worker = hand.worker()
    hand.finish(worker.claim())
    worker.claim()

    worker.mark_dead(crashed=True)

    assert [image.strikes for image in hand.images(job.id)] == [0, 1, 0]


def test_a_process_that_ends_while_it_loads_a_file_strikes_the_file_and_no_image(hand, job_factory, sessions):
    seen = Scanned("torn.ckpt", "torn", 7, 1, "f" * 64, Inspection("checkpoint", "sd1", 512))
    hand.run(recording.record, [seen])
    job = job_factory(count=2)
    for _ in range(2):
        worker = hand.worker()
        worker.claim()
        worker.claim()
        assert worker.mark_dead(crashed=True, files=["f" * 64]) == 2
    assert [(image.state, image.strikes) for image in hand.images(job.id)] == [("queued", 0)] * 2
    (file,) = [file for file in hand.run(Catalogue.read).entries() if file.name == "torn"]
    assert (file.usable, file.reason) == (
        False,
        "reading it ended its process twice: gone; replace the file, or touch it to have it tried again",
    )
    worker = hand.worker()
    worker.claim()
    worker.mark_dead(crashed=True, files=["e" * 64])  # of no file that is known: it may have been the image
    assert sorted(image.strikes for image in hand.images(job.id)) == [0, 1]


def test_an_image_that_crashes_three_workers_fails_and_says_so(hand, job_factory):
    job = job_factory()
    for _ in range(MOST_CRASHES):
        worker = hand.worker()
        worker.claim()
        worker.mark_dead(crashed=True)

    image = hand.images(job.id)[0]
    assert image.state == "failed"
    assert image.reason == "Its worker crashed three times while rendering it; the last time gone."
    assert image.worker == worker.name
    assert hand.job(job.id).state == "failed"
    assert hand.worker().claim() is None


def test_a_worker_runs_one_struck_image_at_a_time_beside_others(hand, job_factory):
    job_factory(count=2)
    dead = hand.worker()
    struck = {dead.claim().image_id, dead.claim().image_id}
    dead.mark_dead(crashed=True)
    innocent = job_factory(count=1)
    worker = hand.worker()

    first, second = worker.claim(), worker.claim()

    assert first.image_id in struck
    assert second.job_id == innocent.id
    assert worker.claim() is None
    hand.finish(first)
    assert worker.claim().image_id in struck - {first.image_id}


def test_leave_hands_back_and_removes_the_row(hand, job_factory, sessions):
    job = job_factory()
    worker = hand.worker()
    worker.claim()

    assert hand.run(workers.leave, worker.id) == 1

    assert hand.images(job.id)[0].state == "queued"
    with sessions() as session:
        assert session.scalars(select(Worker)).all() == []
        events = session.scalars(select(History.event).where(History.worker == worker.name).order_by(History.id))
        assert events.all() == ["registered", "claimed", "given back", "left"]


def test_reap_buries_workers_past_their_lease_only(hand, job_factory, sessions):
    job = job_factory(count=2)
    silent, alive = hand.worker(), hand.worker()
    silent.claim(), alive.claim()
    end_lease(sessions, silent)

    assert hand.run(reaper.reap, me_on_time=True, lease_seconds=0) == [silent.id]

    assert [(image.state, image.strikes) for image in hand.images(job.id)] == [("queued", 0), ("running", 0)]
    assert silent.heartbeat() is None
    assert alive.heartbeat({}) is not None


def test_reap_by_one_whose_own_beats_were_late_buries_nobody(hand, sessions):
    silent = hand.worker()
    end_lease(sessions, silent)

    assert hand.run(reaper.reap, me_on_time=False, lease_seconds=0) == []


def test_reap_buries_nobody_before_the_database_was_up_for_a_lease(hand, sessions):
    silent = hand.worker()
    end_lease(sessions, silent)

    assert hand.run(reaper.reap, me_on_time=True, lease_seconds=uptime_seconds(sessions) + 60) == []
    assert hand.run(reaper.reap, me_on_time=True, lease_seconds=0) == [silent.id]


def test_reap_passes_over_a_worker_that_is_renewing_its_lease(hand, sessions):
    late = hand.worker()
    end_lease(sessions, late)

    with sessions.begin() as session:
        workers.heartbeat(
            session,
            late.id,
            running={},
            state="ready",
            phase="",
            resident=[],
            load_seconds=None,
            lease_seconds=20,
        )
        assert hand.run(reaper.reap, me_on_time=True, lease_seconds=0) == []

    assert hand.run(reaper.reap, me_on_time=True, lease_seconds=0) == []
