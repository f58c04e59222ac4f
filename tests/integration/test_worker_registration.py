"""A worker registers on tables that it can work with, and waits for those to come."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from alembic import command
from sqlalchemy import NullPool, create_engine, text

from shared.db import migrate, revisions
from shared.db import sessions as database
from shared.db.farm import farm_id
from shared.settings import Settings
from tests.support.servers import fresh_database
from worker import process
from worker.supervisor.gpus import Address
from worker.supervisor.launch import Launch
from worker.supervisor.status_pipe import StatusWriter


@pytest.fixture
def database_url(home):
    """A database without any table."""
    with fresh_database(home, template="template0") as url:
        yield url


@pytest.fixture
def sessions(database_url):
    return database.sessions(create_engine(database_url, poolclass=NullPool))


def registers(sessions) -> int:
    return process._register(Launch(Address("cpu:0"), Settings(), StatusWriter()), sessions, farm_id(sessions))


def test_a_worker_waits_for_every_revision_that_its_code_needs(database_url, sessions, monkeypatch):
    waited_at = []

    def upgrade_by_one(_seconds):
        waited_at.append(migrate.current(database_url))
        command.upgrade(migrate.config(database_url), "+1")

    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=upgrade_by_one))
    worker_id = registers(sessions)
    assert worker_id > 0
    assert waited_at[0] is None
    assert waited_at[1:] == [f"{number:04}" for number in range(1, int(revisions.head()))]
    assert migrate.current(database_url) == revisions.head()


@pytest.mark.parametrize("revision", ["9999", "another"])
def test_a_worker_registers_on_tables_of_a_newer_version_and_not_on_another_programs(
    database_url, sessions, monkeypatch, revision
):
    migrate.upgrade(database_url)
    with sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})

    class WaitsError(Exception): ...

    def sleep(_seconds):
        raise WaitsError

    monkeypatch.setattr(process, "time", SimpleNamespace(sleep=sleep))
    if revision == "9999":
        assert registers(sessions) > 0
    else:
        with pytest.raises(WaitsError):
            registers(sessions)
