from __future__ import annotations

import os
import signal

from sqlalchemy import select

from shared.db.farm import farm_id
from shared.db.tables import History
from shared.messaging.events import Events
from tests.support.waiting import until
from tests.support.workers import images, ready, started, states
from worker.supervisor import child

QUICK = {"FARM_LEASE_SECONDS": "600", "FARM_BEAT_SECONDS": "0.3", "FARM_HANG_FACTOR": "0.05"}  # no lease ends here


def end_of_its_worker(sessions):
    with sessions() as session:
        return until(lambda: session.scalar(select(History.detail).filter_by(event="buried")), what="the burial")


def test_a_worker_that_hangs_is_killed_buried_with_the_phase_and_started_again(
    environ, sessions, job_factory, tmp_path
):
    gate = tmp_path / "gate"
    with started({**environ, **QUICK}, "--gpus", "cpu", "--slots", "1"):
        [first] = until(lambda: ready(sessions))
        job_factory(prompt=f"hang unless {gate}")
        reason = end_of_its_worker(sessions)
        gate.touch()
        until(lambda: states(sessions) == ["succeeded"])
        [second] = until(lambda: ready(sessions))
    assert reason.startswith("its process hung for ")
    assert reason.split(" s ")[1].startswith("in decode and was killed")
    assert second.pid != first.pid
    [image] = images(sessions)
    assert (image.attempt, image.strikes) == (2, 1)


def test_a_worker_that_is_stopped_while_it_renders_is_seen(environ, settings, sessions, job_factory, tmp_path):
    gate = tmp_path / "gate"
    events = Events(settings.redis, farm_id(sessions))
    with started({**environ, **QUICK}, "--gpus", "cpu", "--slots", "1"):
        [worker] = until(lambda: ready(sessions))
        job = job_factory(prompt=f"wait for {gate}")
        until(lambda: events.progress(job.id), what="its first step")
        os.kill(worker.pid, signal.SIGSTOP)
        assert "in decode" in end_of_its_worker(sessions)
        gate.touch()
        until(lambda: states(sessions) == ["succeeded"])
    events.close()


def test_to_be_idle_is_no_hang(environ, sessions, job_factory, tmp_path):
    gate = tmp_path / "gate"
    with started({**environ, **QUICK}, "--gpus", "cpu:2", "--slots", "1"):
        first, second = until(lambda: ready(sessions, 2))
        os.kill(first.pid, signal.SIGSTOP)  # it has nothing to do
        job_factory(prompt=f"hang unless {gate}")
        end_of_its_worker(sessions)  # of the other one, a whole limit later
        [still] = until(lambda: ready(sessions))
        os.kill(first.pid, signal.SIGCONT)
    assert still.id == first.id != second.id


def test_a_worker_without_a_supervisor_ends_itself(environ, sessions, job_factory, tmp_path):
    with started({**environ, **QUICK}, "--card", "cpu:0", "--slots", "1") as process:
        until(lambda: ready(sessions))
        job_factory(prompt=f"hang unless {tmp_path / 'never'}")
        assert process.wait(60) == child.HUNG
    assert "in decode and ended itself" in end_of_its_worker(sessions)
    [image] = images(sessions)
    assert (image.state, image.strikes) == ("queued", 1)
