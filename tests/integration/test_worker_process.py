from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis import Redis
from sqlalchemy import select

from shared.accounts.scope import EVERYBODYS
from shared.db.farm import farm_id
from shared.db.sessions import transact
from shared.db.tables import History, Worker
from shared.messaging.events import Events
from shared.messaging.tickets import Tickets, pool_queue
from shared.models import first_scan
from shared.queue import reaper, transitions
from shared.queue.history import Event
from tests.support.waiting import until
from tests.support.workers import QUICK, ROOT, images, ready, started, states
from worker.supervisor import child


@pytest.fixture
def tickets(settings, sessions):
    tickets = Tickets(settings.redis, farm_id(sessions))
    yield tickets
    tickets.close()


def test_a_full_worker_takes_no_ticket_and_an_idle_one_takes_all(environ, sessions, tickets, job_factory, tmp_path):
    gate = tmp_path / "gate"
    with started(environ, "--card", "cpu:0", "--slots", "8"), started(environ, "--card", "cpu:1", "--slots", "8"):
        first, second = until(lambda: ready(sessions, 2))
        job_factory(prompt=f"wait for {gate}", count=16)
        tickets.publish("default", 16)
        until(lambda: states(sessions) == ["running"] * 16, what="two idle workers share 16 tickets")
        shares = [image.worker_id for image in images(sessions)]
        assert (shares.count(first.id), shares.count(second.id)) == (8, 8)
        with Redis.from_url(environ["FARM_REDIS_URL"]) as redis:
            # Usually none is left: but a look may have found the images before their tickets were out.
            queue = farm_id(sessions).key(pool_queue("default"))
            left = redis.llen(queue)
            job_factory()
            tickets.publish("default", 1)
            until(lambda: redis.llen(queue) == left + 1, what="the ticket that nobody takes")
            gate.touch()
            until(lambda: states(sessions) == ["succeeded"] * 17, what="all pictures")
            until(lambda: redis.llen(queue) == 0)


def test_images_are_found_when_redis_was_emptied(environ, settings, sessions, job_factory):
    with started(environ, "--card", "cpu:0"):
        until(lambda: ready(sessions))
        job_factory(count=3)
        with Redis.from_url(settings.redis) as redis:
            redis.flushall()
        until(lambda: states(sessions) == ["succeeded"] * 3, seconds=5, what="the look")


def test_a_backlog_whose_tickets_were_lost_keeps_the_slots_busy(environ, sessions, job_factory):
    seldom = {**environ, "FARM_LOOK_SECONDS": "60"}
    job_factory(count=10)
    with started(seldom, "--card", "cpu:0", "--slots", "2"):
        until(lambda: states(sessions) == ["succeeded"] * 10, what="all of it, long before the next look is due")


def test_a_cancel_is_heard_at_once_over_redis(environ, settings, sessions, job_factory, tmp_path):
    slow = {**environ, "FARM_BEAT_SECONDS": "1000", "FARM_LEASE_SECONDS": "3000"}
    with started(slow, "--card", "cpu:0", "--slots", "1"):
        until(lambda: ready(sessions))
        job = job_factory(prompt=f"wait for {tmp_path / 'never'}")
        until(lambda: states(sessions) == ["running"])
        cancelled = transact(sessions, lambda session: transitions.cancel(session, EVERYBODYS, job.id))
        events = Events(settings.redis, farm_id(sessions))
        events.announce_cancel(cancelled.running)
        next_job = job_factory()
        until(lambda: states(sessions, next_job.id) == ["succeeded"], what="the freed slot")
        events.close()


def test_a_worker_that_was_declared_dead_ends(environ, sessions):
    with started(environ, "--card", "cpu:0") as process:
        [worker] = until(lambda: ready(sessions))
        transact(sessions, lambda session: reaper.mark_dead(session, worker.id, reason="test", crashed=False))
        assert process.wait(10) == child.DECLARED_DEAD


def test_term_drains(environ, sessions, job_factory, tmp_path):
    gate = tmp_path / "gate"
    with started(environ, "--card", "cpu:0", "--slots", "2") as process:
        until(lambda: ready(sessions))
        running = job_factory(prompt=f"wait for {gate}")
        until(lambda: states(sessions) == ["running"])
        process.send_signal(signal.SIGTERM)
        until(lambda: not ready(sessions), what="draining")
        queued = job_factory()
        gate.touch()
        assert process.wait(15) == child.CLEAN
    with Redis.from_url(environ["FARM_REDIS_URL"]) as redis:
        assert redis.keys("*worker.*") == [], "its direct queue has left with it"
    assert states(sessions, running.id) == ["succeeded"]
    assert states(sessions, queued.id) == ["queued"]


def test_a_second_term_hands_back_without_a_strike(environ, sessions, job_factory, tmp_path):
    with started(environ, "--card", "cpu:0") as process:
        until(lambda: ready(sessions))
        job_factory(prompt=f"wait for {tmp_path / 'never'}")
        until(lambda: states(sessions) == ["running"])
        process.send_signal(signal.SIGTERM)
        until(lambda: not ready(sessions), what="draining")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == child.CLEAN
    [image] = images(sessions)
    assert (image.state, image.attempt, image.strikes) == ("queued", 1, 0)


def test_the_grace_time_ends_a_drain(environ, sessions, job_factory, tmp_path):
    short = {**environ, "FARM_GRACE_SECONDS": "0.5"}
    with started(short, "--card", "cpu:0") as process:
        until(lambda: ready(sessions))
        job_factory(prompt=f"wait for {tmp_path / 'never'}")
        until(lambda: states(sessions) == ["running"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == child.CLEAN
    assert states(sessions) == ["queued"]


def test_a_second_worker_on_a_card_is_turned_away(environ, sessions):
    with started(environ, "--card", "cpu:0"):
        until(lambda: ready(sessions))
        with started(environ, "--card", "cpu:0") as second:
            assert second.wait(15) == child.BUSY


@pytest.fixture
def storage(settings, environ, tmp_path):
    """The folder of the workers' storage, and where it lies while its disk is not mounted."""
    mounted, unmounted = tmp_path / "pictures", tmp_path / "disk"
    mounted.mkdir()
    environ["FARM_STORAGE_URL"] = str(mounted)

    def unmount() -> None:
        mounted.rename(unmounted)
        mounted.mkdir()

    def mount() -> None:
        mounted.rmdir()  # fails if anything was stored in its place
        unmounted.rename(mounted)

    return SimpleNamespace(folder=mounted, unmount=unmount, mount=mount)


def _waits(sessions) -> bool:
    """True if the one worker tells everybody that it takes nothing, since its storage is away."""
    told = transact(sessions, lambda session: session.execute(select(Worker.state, Worker.phase)).all())
    return [(state, phase.partition(":")[0]) for state, phase in told] == [("drained", "the storage takes no pictures")]


def test_a_picture_waits_in_its_worker_until_the_storage_is_back(environ, sessions, job_factory, tmp_path, storage):
    job_factory(prompt=f"wait for {tmp_path / 'gate'}")
    with started(environ, "--card", "cpu:0"):
        until(lambda: states(sessions) == ["running"])
        storage.unmount()
        (tmp_path / "gate").touch()
        until(lambda: _waits(sessions), what="the worker to say so")
        job_factory(count=3)
        until(lambda: _waits(sessions))
        assert states(sessions) == ["running", "queued", "queued", "queued"]
        storage.mount()
        until(lambda: states(sessions) == ["succeeded"] * 4)
        until(lambda: ready(sessions))
    assert [(image.attempt, image.strikes) for image in images(sessions)] == [(1, 0)] * 4


def test_a_worker_that_is_stopped_while_the_storage_is_away_hands_its_picture_back(
    environ, sessions, job_factory, tmp_path, storage
):
    job_factory(prompt=f"wait for {tmp_path / 'gate'}")
    with started({**environ, "FARM_GRACE_SECONDS": "0.5"}, "--card", "cpu:0") as process:
        until(lambda: states(sessions) == ["running"])
        storage.unmount()
        (tmp_path / "gate").touch()
        until(lambda: _waits(sessions))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == child.CLEAN
    [image] = images(sessions)
    assert (image.state, image.attempt, image.strikes) == ("queued", 1, 0)
    with started(environ, "--card", "cpu:0"):
        until(lambda: _waits(sessions), what="a worker that starts without its storage")
        assert states(sessions) == ["queued"]
        storage.mount()
        until(lambda: states(sessions) == ["succeeded"])


NO_CARD_YET = """
from functools import partial
from time import sleep
from worker.__main__ import end, main
from worker.process import run_worker

end(main(run_worker=partial(run_worker, make_card=lambda *_: sleep(600))))
"""


def test_the_models_folder_is_looked_at_while_the_card_is_still_brought_up(environ, sessions):
    process = subprocess.Popen(
        [sys.executable, "-c", NO_CARD_YET, "--card", "cpu:0"], env={**QUICK, **environ}, cwd=ROOT
    )
    try:
        until(lambda: transact(sessions, lambda session: session.scalar(select(Worker.state))) == "starting")
        until(lambda: not transact(sessions, first_scan.is_awaited), what="the first look")
        assert not ready(sessions)
    finally:
        process.kill()
        process.wait(10)


def test_a_worker_whose_memory_grows_finishes_what_runs_and_starts_again(environ, sessions, job_factory, tmp_path):
    growing = {**environ, "FARM_BEAT_SECONDS": "0.1", "GROWN": str(tmp_path / "grown")}
    gate = tmp_path / "gate"
    with started(growing, "--gpus", "cpu", "--slots", "2", module="tests.support.growing_worker"):
        first = until(lambda: ready(sessions))[0]
        job = job_factory(prompt=f"wait for {gate}")
        until(lambda: states(sessions, job.id) == ["running"])
        many = job_factory(count=60)

        def trouble() -> str:
            row = transact(sessions, lambda session: session.get(Worker, first.id))
            return (row and row.trouble) or ""

        until(lambda: "its memory grew by" in trouble(), what="its reason on the workers page")
        assert states(sessions, job.id) == ["running"]
        gate.touch()
        until(lambda: states(sessions, job.id) == ["succeeded"], what="the image that ran")
        second = until(lambda: [one for one in ready(sessions) if one.id != first.id])[0]
        assert second.name == first.name
        until(lambda: set(states(sessions, many.id)) == {"succeeded"}, what="the rest, by the next process")
    query = select(History.detail).where(History.event == Event.MARKED_DEAD, History.worker == first.name)
    (ended,) = transact(sessions, lambda session: session.scalars(query).all())
    assert ended.startswith("its memory grew by")
    assert ended.endswith("of the same models; started again")


def test_a_process_that_tests_fork_is_one_like_any_other(environ):
    with started(environ, "--card", "cpu:0") as process:
        shown = Path(f"/proc/{process.pid}/cmdline")
        wanted = [sys.executable, "-m", "tests.support.stub_worker", "--card", "cpu:0"]
        until(lambda: shown.read_text().rstrip("\0").split("\0") == wanted)
        assert os.getpgid(process.pid) == process.pid
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    with started(environ, "--help") as process:
        assert process.wait(10) == 0
    with started(environ, "--no-such-option") as process:
        assert process.wait(10) == 2
