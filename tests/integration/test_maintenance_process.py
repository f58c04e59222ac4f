"""The process that does chores: ended anywhere, several at once, with servers that go away and come back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
from sqlalchemy import func, select, text, update

from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.accounts.scope import EVERYBODYS
from shared.db import migrate
from shared.db.farm import farm_id
from shared.db.sessions import transact
from shared.db.tables import ChoreDone, History, Image, Job
from shared.media.storage import Storage, key
from shared.queue import transitions
from tests.support.servers import clean_environment
from tests.support.waiting import until
from tests.support.workers import ROOT, kill, started, states
from worker.maintenance import process as maintenance

MODULE = "worker.maintenance.process"
eventually = partial(until, seconds=60)  # a process starts first, maybe on a busy machine
WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'farm chores' AND wait_event_type = 'Lock'"
)


@pytest.fixture
def storage(settings, sessions):
    """The farm's storage, marked as its own: what lies there is of jobs that have no committed picture."""
    storage = Storage(settings.storage)
    storage.mark(farm_id(sessions).value)
    return storage


@pytest.fixture
def environ(environ):
    return environ | {"FARM_KEEP_DAYS": "10", "FARM_LOG_FORMAT": "json"}


@pytest.fixture
def old_job(sessions, job_factory, storage):
    """A cancelled job that is old enough to be deleted, with a picture."""

    def make() -> Job:
        job = job_factory()
        storage.put(picture(job), b"picture")
        aged = update(Job).where(Job.id == job.id).values(ended_at=func.now() - timedelta(days=11))
        transact(sessions, lambda session: (transitions.cancel(session, EVERYBODYS, job.id), session.execute(aged)))
        return job

    return make


def picture(job):
    return key(job.id, 0, 1, "picture")


def jobs(sessions):
    return transact(sessions, lambda session: session.scalars(select(Job.id).order_by(Job.id)).all())


def count(sessions, query):
    return transact(sessions, lambda session: session.scalar(query))


def chores(environ, **options):
    return started(environ, module=MODULE, **options)


def told(log, chore):
    """Return what a process logged of one chore: the others go their own way."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("chore") == chore]


def done(log, chore):
    return [line for line in told(log, chore) if line["event"] == "chore done"]


def is_noted(sessions, name):
    return count(sessions, select(func.count()).select_from(ChoreDone).filter_by(name=name)) == 1


def test_kill_in_mid_chore_leaves_whole_jobs_and_the_next_process_goes_on(environ, sessions, old_job, storage):
    first, second, third = (old_job() for _ in range(3))
    with sessions() as holder:
        holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        holder.execute(select(Image.id).where(Image.job_id == second.id).with_for_update())
        with chores(environ) as process:
            eventually(
                lambda: jobs(sessions) == [second.id, third.id] and count(sessions, WAITING), what="half of a chore"
            )
            kill(process.pid)
            process.wait()
        assert jobs(sessions) == [second.id, third.id]
        holder.rollback()
    assert not is_noted(sessions, "jobs")
    with chores(environ):
        eventually(lambda: is_noted(sessions, "jobs"))
    assert jobs(sessions) == []
    assert not any(storage.exists(picture(job)) for job in (first, second, third))


def test_two_at_once_do_each_thing_once(environ, sessions, old_job, tmp_path):
    many = [old_job().id for _ in range(20)]
    logs = [tmp_path / "one", tmp_path / "other"]
    with chores(environ, log=logs[0]), chores(environ, log=logs[1]):
        eventually(lambda: all("chores ready" in log.read_text() for log in logs))
        eventually(lambda: is_noted(sessions, "jobs") and is_noted(sessions, "attempts"))
        eventually(lambda: any(done(log, "jobs") for log in logs))
    deleted = select(History.job_id).where(History.event == "deleted").order_by(History.job_id)
    assert transact(sessions, lambda session: session.scalars(deleted).all()) == many
    assert [line["jobs"] for log in logs for line in done(log, "jobs")] == [20]


def test_chore_that_is_asked_for_is_done_at_once(environ, sessions, old_job):
    with chores(environ):
        eventually(lambda: is_noted(sessions, "jobs"))
        old_job()
        command = [sys.executable, "-m", MODULE, "--now", "jobs"]
        assert subprocess.run(command, env=environ, cwd=ROOT, check=False, timeout=30).returncode == 0
        eventually(lambda: jobs(sessions) == [])


def test_unknown_chore_is_refused_with_those_there_are(environ):
    command = [sys.executable, "-m", MODULE, "--now", "dishes"]
    refused = subprocess.run(command, env=environ, cwd=ROOT, check=False, timeout=30, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "'objects'" in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_in_order(environ, tmp_path, number):
    log = tmp_path / "log"
    with chores(environ, log=log) as process:
        eventually(lambda: "chores ready" in log.read_text())
        process.send_signal(number)
        assert process.wait(10) == 0


class TestOutages:
    @pytest.fixture
    def own_home(self, tmp_path):
        """A home whose servers this test may stop, with a migrated database in it; none of them runs."""
        home = tmp_path / "farm"
        with Servers(home, durable=False):
            migrate.upgrade(embedded_addresses.database_url(home))
        return home

    @pytest.fixture
    def database_url(self, own_home):
        return embedded_addresses.database_url(own_home)

    def test_it_goes_on_when_the_servers_are_back(self, own_home, tmp_path, sessions, job_factory):
        def overdue():
            sessions.kw["bind"].dispose()  # connections to servers that have stopped since
            job = job_factory()
            past = update(Image).where(Image.job_id == job.id).values(expires_at=func.now() - timedelta(seconds=1))
            transact(sessions, lambda session: session.execute(past))

        log = tmp_path / "log"
        environ = clean_environment() | {"FARM_HOME": str(own_home), "FARM_MODELS": str(tmp_path)}
        environ["FARM_LOG_FORMAT"] = "json"
        with chores(environ, log=log) as process:
            eventually(lambda: "chore put off" in log.read_text(), what="no server at its start")
            with Servers(own_home, redis=False, durable=False):
                overdue()
                eventually(lambda: states(sessions) == ["cancelled"], what="a chore without Redis")
            with Servers(own_home, durable=False):
                overdue()
                eventually(lambda: states(sessions) == ["cancelled"] * 2, what="both back")
                eventually(lambda: "chore goes on" in log.read_text())
            assert process.poll() is None
        assert "Traceback" not in log.read_text()
        # It may be done without saying that it goes on: a server that stops right after takes its lock away.
        said = [event for line in told(log, "due") if (event := line["event"]) != "chore done"]
        assert said[0] == "chore put off"
        assert all(one != other for one, other in pairwise(said)), "it is put off once, not once a turn"


def test_the_desk_is_cleared_whatever_happens_at_it(settings, sessions):
    """Its connection tells others that somebody does the chores."""
    connected = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'farm chores'")

    def work(session):
        session.execute(text("SELECT 1"))
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"), maintenance.open_context(settings) as context:
        transact(context.sessions, work)
    until(lambda: transact(sessions, lambda session: session.scalar(connected)) == 0)
