"""Workers killed with kill -9 and connections cut at random moments: every image succeeds exactly once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from functools import partial

import pytest
from sqlalchemy import func, select, text

from shared.db import sessions as database
from shared.db.tables import History, Image, Job, Outbox
from shared.queue import reaper
from tests.support import preloaded
from tests.support.servers import clean_environment, fresh_database

IMAGES = 900  # more than all of them end before the last kill
KILLS = 4


@pytest.fixture
def database_url(home):
    """A new one: all connections to it are there to be cut."""
    with fresh_database(home) as url:
        yield url


@pytest.fixture
def claimers(database_url):
    """Starts claimers at once, each a process of its own; returns each and its worker id once all have registered."""
    started = []

    def start(count):
        fresh = [_start(database_url) for _ in range(count)]
        started.extend(fresh)
        return [(process, int(told.readline())) for process, told in fresh]

    yield start
    for process, told in started:
        process.kill()
        process.wait()
        told.close()


def _start(database_url):
    """Return a new claimer, and what it tells."""
    told, tells = os.pipe()
    with open(os.devnull, "rb") as nothing, open(tells, "wb") as output:  # noqa: PTH123 - a descriptor
        files = {0: nothing.fileno(), 1: output.fileno(), 2: 2}
        process = preloaded.parent("-W", "error").start(
            ["tests.chaos.claimer", database_url], clean_environment(), files
        )
    return process, open(told)  # noqa: PTH123 - a descriptor; the fixture closes it


def cut_a_connection(sessions):
    """End one other connection to this database in the middle of its work."""
    with sessions.begin() as session:
        session.execute(
            text("""
                SELECT pg_terminate_backend(pid)
                FROM pg_stat_activity
                WHERE datname = current_database() AND pid != pg_backend_pid()
                ORDER BY random()
                LIMIT 1
            """)
        )


def succeeded(sessions):
    with sessions() as session:
        return session.scalar(select(func.count()).where(Image.state == "succeeded"))


def test_every_image_succeeds_once_whoever_is_killed(sessions, job_factory, claimers):
    chance = random.Random(20)
    jobs = [job_factory(owner=owner, count=IMAGES // 3).id for owner in ("ann", "bob", "eve")]

    for victim, worker_id in claimers(KILLS):
        time.sleep(chance.uniform(0, 0.1))  # a moment of no meaning: that is the test
        cut_a_connection(sessions)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        database.transact(sessions, partial(reaper.mark_dead, worker_id=worker_id, reason="killed", crashed=False))

    [(survivor, _)] = claimers(1)
    assert survivor.wait(120) == 0
    assert succeeded(sessions) == IMAGES
    with sessions() as session:
        finished = Counter(session.scalars(select(History.image_id).where(History.event == "finished")))
        ended = session.execute(select(Job.state, Job.unfinished).where(Job.id.in_(jobs))).all()
        events = Counter(session.scalars(select(Outbox.job_id)))
        given_back = session.scalar(select(func.count()).where(History.event == "given back"))
    assert set(finished.values()) == {1}
    assert len(finished) == IMAGES
    assert [tuple(job) for job in ended] == [("succeeded", 0)] * 3
    assert events == dict.fromkeys(jobs, 1)
    assert given_back > 0, "no kill hit an image in flight: the test proves nothing"
