"""PostgreSQL and Redis go away and come back: what runs is finished and committed, nothing is lost, nobody crashes."""

from __future__ import annotations

import pytest

from cli.embedded.servers import Servers
from shared import embedded_addresses
from shared.db import migrate
from tests.support.servers import clean_environment
from tests.support.waiting import until
from tests.support.workers import images, ready, started, states


@pytest.fixture
def own_home(tmp_path):
    """A home whose servers this test may stop, with a migrated database in it; none of them runs."""
    home = tmp_path / "farm"
    with Servers(home, durable=False):
        migrate.upgrade(embedded_addresses.database_url(home))
    return home


@pytest.fixture
def database_url(own_home):
    return embedded_addresses.database_url(own_home)


@pytest.fixture
def own_environ(own_home, tmp_path):
    return clean_environment() | {"FARM_HOME": str(own_home), "FARM_MODELS": str(tmp_path)}


def test_a_worker_waits_for_servers_that_are_away_at_its_start(own_home, own_environ, sessions, job_factory, tmp_path):
    log = tmp_path / "log"
    with started(own_environ, "--card", "cpu:0", log=log):
        until(lambda: "waiting for the database" in log.read_text(), seconds=30)
        with Servers(own_home, redis=False, durable=False):
            until(lambda: ready(sessions), seconds=30, what="alive without Redis")
        with Servers(own_home, durable=False):
            job_factory()
            until(lambda: states(sessions) == ["succeeded"], seconds=30)


def test_a_worker_waits_for_tables_that_are_not_there_yet(tmp_path):
    home, log = tmp_path / "farm", tmp_path / "log"
    environ = clean_environment() | {"FARM_HOME": str(home), "FARM_MODELS": str(tmp_path)}
    with Servers(home, durable=False), started(environ, "--card", "cpu:0", log=log) as process:
        until(lambda: "farm db upgrade" in log.read_text(), seconds=30)
        migrate.upgrade(embedded_addresses.database_url(home))
        until(lambda: "worker ready" in log.read_text(), seconds=30)
        assert process.poll() is None
        assert "Traceback" not in log.read_text()


def test_what_runs_is_committed_when_the_servers_are_back(own_home, own_environ, sessions, job_factory, tmp_path):
    gate, log = tmp_path / "gate", tmp_path / "log"
    slow = own_environ | {"FARM_LEASE_SECONDS": "600", "FARM_LOG_LEVEL": "debug"}
    with started(slow, "--card", "cpu:0", log=log):
        with Servers(own_home, durable=False):
            until(lambda: ready(sessions), seconds=30)
            running = job_factory(prompt=f"wait for {gate}")
            until(lambda: states(sessions) == ["running"])
        until(lambda: "database away" in log.read_text())
        gate.touch()
        until(lambda: "commit waits" in log.read_text())
        with Servers(own_home, durable=False):
            until(lambda: states(sessions) == ["succeeded"], seconds=30)
            assert images(sessions, running.id)[0].attempt == 1
            job_factory()
            until(
                lambda: states(sessions) == ["succeeded"] * 2, seconds=30, what="the next image, whose ticket is lost"
            )
