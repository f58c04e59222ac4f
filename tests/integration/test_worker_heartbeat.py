from __future__ import annotations

import pytest
from sqlalchemy import select

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import transact
from shared.db.tables import Worker
from shared.queue import reaper, transitions, workers
from tests.support.workers import TICKET, images, made, states
from worker.dispatch.claimer import Claimer
from worker.dispatch.heartbeat import Heartbeat
from worker.supervisor.clock_guard import ClockGuard


@pytest.fixture
def worker(settings, sessions):
    # The database must have been up for a whole lease before a worker is declared dead.
    with made(settings.model_copy(update={"lease_seconds": 0.4, "beat_seconds": 0.1}), sessions) as worker:
        yield worker


@pytest.fixture
def beat(worker):
    return Heartbeat(worker, on_dead=lambda: pytest.fail("was declared dead"))


def claim(worker, job_factory, **params):
    job_factory(**params)
    return Claimer(worker).next(TICKET).claim


def test_an_image_cancelled_in_sql_is_closed_here_by_the_next_beat(worker, beat, sessions, job_factory):
    claims = [claim(worker, job_factory), claim(worker, job_factory)]
    flags = [worker.in_flight.open(each) for each in claims]
    transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, claims[0].job_id))
    beat.run_once()
    assert [flag.is_set for flag in flags] == [True, False]


def test_calls_that_broke_are_told(worker, beat, sessions, monkeypatch):
    monkeypatch.setattr(worker.card, "broken_calls", {"out of memory": 2, "error": 1})
    beat.run_once()
    with sessions() as session:
        assert session.get_one(Worker, worker.id).broken_calls == {"out of memory": 2, "error": 1}


def test_an_image_that_no_slot_carries_is_handed_back_after_the_time_of_a_beat(worker, sessions, job_factory):
    now = [1000.0]
    beat = Heartbeat(worker, on_dead=lambda: pytest.fail("was declared dead"), clock=lambda: now[0])
    claim(worker, job_factory)
    for _ in range(5):  # a beat that somebody woke comes at once after the one before
        beat.run_once()
        now[0] += worker.settings.beat_seconds / 10
    assert states(sessions) == ["running"]
    now[0] += worker.settings.beat_seconds
    beat.run_once()
    [image] = images(sessions)
    assert (image.state, image.attempt, image.strikes) == ("queued", 1, 0)


def test_another_attempt_that_is_missing_has_a_beat_s_time_of_its_own(worker, sessions, job_factory):
    now = [1000.0]
    beat = Heartbeat(worker, on_dead=lambda: pytest.fail("was declared dead"), clock=lambda: now[0])
    first = claim(worker, job_factory)
    beat.run_once()
    transact(sessions, lambda session: transitions.hand_back(session, worker.id, {first.image_id: first.attempt}))
    Claimer(worker).next(TICKET)
    now[0] += worker.settings.beat_seconds
    beat.run_once()
    assert states(sessions) == ["running"]


def test_a_beat_that_asked_before_the_worker_drained_itself_resumes_nothing(worker, beat, monkeypatch, capsys):
    send = beat._renew_lease

    def slow(held):
        answer = send(held)
        worker.replace_drained(None, "sick")
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(beat, "_renew_lease", slow)
        beat.run_once()
    assert worker.drained == "sick"
    assert "resumed" not in capsys.readouterr().out
    beat.run_once()
    assert worker.drained is None, "SQL, asked since, says so"


def test_a_claim_on_its_way_is_not_handed_back(worker, beat, sessions, job_factory):
    taken = claim(worker, job_factory)
    beat.run_once()
    worker.in_flight.open(taken)
    beat.run_once()
    beat.run_once()
    assert states(sessions) == ["running"]


def test_a_younger_attempt_is_not_closed_for_an_older_one(worker, sessions, job_factory):
    old = claim(worker, job_factory)
    worker.in_flight.open(old)
    transact(sessions, lambda session: transitions.hand_back(session, worker.id, {old.image_id: old.attempt}))
    young = worker.in_flight.open(Claimer(worker).next(TICKET).claim)
    worker.in_flight.cancel({old.image_id: old.attempt})
    assert not young.is_set


def test_a_worker_that_was_declared_dead_is_told(worker, sessions):
    told = []
    transact(sessions, lambda session: reaper.mark_dead(session, worker.id, reason="test", crashed=False))
    Heartbeat(worker, on_dead=lambda: told.append(worker.id)).run_once()
    assert told == [worker.id]


def test_a_silent_worker_is_declared_dead_only_after_a_lease_of_beats_on_time(worker, sessions):
    silent = _register_silent(sessions)
    settings, now = worker.settings, [1000.0]
    beat = Heartbeat(worker, on_dead=lambda: pytest.fail("was declared dead"), clock=lambda: now[0])

    def lives_after(seconds):
        now[0] += seconds
        beat.run_once()
        return silent in _worker_ids(sessions)

    assert lives_after(0)
    assert lives_after(settings.lease_seconds)  # a whole lease without a beat: it was this worker that was away
    beats = round(settings.lease_seconds / settings.beat_seconds)
    assert all(lives_after(settings.beat_seconds) for _ in range(beats - 1))
    assert not all(lives_after(settings.beat_seconds) for _ in range(beats))


def _register_silent(sessions):
    known = {"name": "b", "host": "b", "pid": 1, "card": "cpu:0", "card_name": "", "pool": "p", "slots": 1}
    return transact(sessions, lambda session: workers.register(session, **known, lease_seconds=-1))


def _worker_ids(sessions):
    with sessions() as session:
        return set(session.scalars(select(Worker.id)))


def test_clock_guard_counts_from_the_last_gap():
    now = [0.0]
    clock_guard = ClockGuard(period_seconds=5, clock=lambda: now[0])
    assert clock_guard.seconds_on_time() == 0
    for now[0] in (0, 5, 10, 15):
        clock_guard.tick()
    assert clock_guard.seconds_on_time() == 15
    now[0] = 60  # the machine slept
    assert clock_guard.seconds_on_time() == 0
    clock_guard.tick()
    assert clock_guard.seconds_on_time() == 0
    now[0] = 66
    clock_guard.tick()
    assert clock_guard.seconds_on_time() == 6
