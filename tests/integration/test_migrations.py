"""The migrations: up, down and up again, to the very tables that the code describes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, inspect, text

from shared.db import migrate, revisions
from shared.db import sessions as database
from shared.db.tables import Base
from shared.errors import Unavailable
from tests.support.servers import fresh_database


@pytest.fixture
def url(home: Path) -> Iterator[str]:
    with fresh_database(home, template="template0") as url:
        yield url


@pytest.fixture
def engine(url):
    return create_engine(url, poolclass=NullPool)


def checks(engine):
    inspector = inspect(engine)
    return {
        table: {check["name"] for check in inspector.get_check_constraints(table)} for table in Base.metadata.tables
    }


def indexes(engine):
    """Every index with all that it is made of: expressions, order, predicate."""
    with engine.connect() as connection:
        return dict(
            connection.execute(text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'")).all()
        )


def test_upgrade_makes_the_tables_that_the_code_describes(url, engine):
    migrate.upgrade(url)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_indexes_and_checks_are_those_of_the_code_to_the_letter(url, engine):
    migrate.upgrade(url)
    migrated = indexes(engine), checks(engine)
    command.downgrade(migrate.config(url), "base")

    Base.metadata.create_all(engine)

    assert (indexes(engine), checks(engine)) == migrated
    assert "urgent DESC" in migrated[0]["ix_images_lane"]


def test_every_revision_goes_down_to_nothing_and_up_again(url, engine):
    migrate.upgrade(url)
    command.downgrade(migrate.config(url), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert migrate.current(url) is None

    migrate.upgrade(url)

    assert migrate.current(url) == revisions.head()


def test_the_ends_of_images_that_are_there_are_counted(url, engine):
    config = migrate.config(url)
    command.upgrade(config, "0004")
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO jobs (owner, state, params, checkpoint, count, unfinished)
            VALUES ('ann', 'failed', '{}', 'c', 5, 0), ('ann', 'open', '{}', 'c', 1, 1)
        """)
        )
        connection.execute(
            text("""
            INSERT INTO images (
                job_id, index, state, owner, checkpoint, pool, memory_class, urgent, priority, cost, attempt, strikes
            )
            SELECT 1 + n / 5, n % 5, states[n + 1], 'ann', 'c', 'default', 6, false, 0, 1, 1, 0
            FROM (SELECT '{failed,cancelled,failed,succeeded,succeeded,queued}'::text[] AS states) AS given,
                 generate_series(0, 5) AS n
        """)
        )

    migrate.upgrade(url)

    with engine.connect() as connection:
        counts = connection.execute(text("SELECT unfinished, failed, cancelled FROM jobs ORDER BY id")).all()
    assert counts == [(0, 2, 1), (1, 0, 0)]


OLDER_JOBS = """
    INSERT INTO jobs (owner, params, state, checkpoint, count, unfinished)
    SELECT 'ann', '{}', 'open', 'c', 2, 2 FROM generate_series(1, 4)
"""
OLDER_IMAGES = """
    INSERT INTO images (
        job_id, index, state, owner, checkpoint, pool, memory_class, urgent, priority, cost, attempt, strikes, reason,
        expires_at, held_until, held_behind
    )
    SELECT job.id, index, state, 'ann', 'c', pool, 6, urgent, priority, 1, 0, 0, reason, expires_at, held_until,
           held_behind
    FROM generate_series(0, 1) AS index
    CROSS JOIN (
        SELECT n + :jobs AS id, given.*
        FROM (VALUES
            (1, 'queued', 'default', false, 0, NULL, NULL, NULL::timestamptz, NULL::bigint),
            (2, 'queued', 'large', true, -5, NULL, '2100-01-01 12:00Z'::timestamptz, NULL, NULL),
            (3, 'held', 'default', false, 0, 'held by ann', NULL, NULL, NULL),
            (4, 'held', 'default', false, 0, 'held', NULL, '2100-02-01 12:00Z', 3)
        ) AS given (n, state, pool, urgent, priority, reason, expires_at, held_until, held_behind)
    ) AS job
"""


def test_a_job_that_an_older_api_submits_before_or_after_the_upgrade_says_its_scheduling(url, engine):
    command.upgrade(migrate.config(url), "0014")
    with engine.begin() as connection:
        connection.execute(text(OLDER_JOBS))
        connection.execute(text(OLDER_IMAGES), {"jobs": 0})

    migrate.upgrade(url)

    with engine.begin() as connection:
        connection.execute(text(OLDER_JOBS))
        connection.execute(text(OLDER_IMAGES), {"jobs": 4})
        columns = "pool, priority, urgent, expires_at, hold, hold_until, hold_behind"
        jobs = connection.execute(text(f"SELECT {columns} FROM jobs ORDER BY id")).all()
    deadline, release = datetime(2100, 1, 1, 12, tzinfo=UTC), datetime(2100, 2, 1, 12, tzinfo=UTC)
    assert jobs == 2 * [
        ("default", 0, False, None, False, None, None),
        ("large", -5, True, deadline, False, None, None),
        ("default", 0, False, None, True, None, None),
        ("default", 0, False, None, False, release, 3),
    ]


def test_what_a_job_says_of_its_scheduling_itself_is_left_as_it_is(url, engine):
    migrate.upgrade(url)
    with engine.begin() as connection:
        connection.execute(text(OLDER_JOBS))
        connection.execute(text("UPDATE jobs SET pool = 'large', urgent = true, priority = -5"))
        connection.execute(text(OLDER_IMAGES), {"jobs": 0})
        jobs = connection.execute(text("SELECT DISTINCT pool, priority, urgent, expires_at, hold FROM jobs")).all()
    assert jobs == [("large", -5, True, None, False)]


def test_upgrade_of_what_stands_there_changes_nothing(url):
    migrate.upgrade(url)
    migrate.upgrade(url)

    assert migrate.current(url) == revisions.head()


def test_processes_that_upgrade_at_once_take_turns(url):
    with ThreadPoolExecutor(1) as pool, create_engine(url, poolclass=NullPool).begin() as other:
        key = 0x57E9FA23
        other.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        waiting = pool.submit(migrate.upgrade, url)
        while not other.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")):
            assert not waiting.done(), waiting.result()
        other.rollback()
        waiting.result(30)

    assert migrate.current(url) == revisions.head()


def test_images_are_vacuumed_by_what_changed(url, engine):
    migrate.upgrade(url)

    with engine.connect() as connection:
        options = connection.scalar(text("SELECT reloptions FROM pg_class WHERE relname = 'images'"))

    assert "autovacuum_vacuum_scale_factor=0.01" in options


def test_revisions_form_one_line_in_the_order_of_their_files():
    scripts = ScriptDirectory.from_config(migrate.config(""))
    assert scripts.get_heads() == [revisions.head()]
    assert {script.revision for script in scripts.walk_revisions()} == revisions.known()


def test_probe_tells_the_revision(url, sessions):
    assert database.probe(sessions) == revisions.head()
    engine = database.connect(url)
    assert database.probe(database.sessions(engine)) is None
    engine.dispose()


def test_a_database_that_is_away_is_unavailable(tmp_path):
    away = f"postgresql+psycopg:///farm?host={tmp_path}&user=postgres"

    for call in (migrate.upgrade, migrate.current):
        with pytest.raises(Unavailable):
            call(away)
    with pytest.raises(Unavailable):
        database.probe(database.sessions(database.connect(away)))


def test_an_upgrade_that_gives_up_keeps_the_revisions_it_has_made_and_goes_on_from_them(url, engine):
    config = migrate.config(url)
    command.upgrade(config, "0013")
    with engine.begin() as reader:
        reader.execute(text("SELECT count(*) FROM jobs"))  # holds the table as a long backup does
        with pytest.raises(Unavailable):
            migrate.upgrade(url)
        assert migrate.current(url) == "0015"

    migrate.upgrade(url)

    assert migrate.current(url) == revisions.head()


def test_an_index_whose_build_was_ended_is_built_again(url, engine):
    migrate.upgrade(url)
    command.downgrade(migrate.config(url), "0015")
    index = {"name": "ix_images_lane_companions"}
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = CAST(:name AS regclass)"), index
        )
    command.stamp(migrate.config(url), "0014")

    migrate.upgrade(url)

    with engine.connect() as connection:
        valid = text("SELECT indisvalid FROM pg_index WHERE indexrelid = CAST(:name AS regclass)")
        assert connection.execute(valid, index).scalar_one()
