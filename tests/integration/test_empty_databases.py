"""The databases of the tests themselves: the next test finds what it would find in a new one."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from shared.db import sessions as database
from tests.conftest import checkpoints_of
from tests.support import databases
from tests.support.databases import empty_database
from tests.support.servers import fresh_database

CHANGES = {
    "a table": "CREATE TABLE more ()",
    "a column": "ALTER TABLE jobs ADD COLUMN more integer",
    "a constraint": "ALTER TABLE jobs ADD CHECK (id > 0)",
    "an index": "CREATE INDEX ON jobs (id)",
    "a trigger": "ALTER TABLE jobs DISABLE TRIGGER ALL",
    "a sequence": "ALTER SEQUENCE jobs_id_seq INCREMENT BY 2",
    "a function": "CREATE FUNCTION more() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "a permission": "GRANT SELECT ON jobs TO PUBLIC",
    "a setting": "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET lock_timeout = 1'; END $$",
    "what the planner knows": "ANALYZE farm",
    "how large a table is": "INSERT INTO history (event) SELECT 'started' FROM generate_series(1, 9999)",
}


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)


def contents(url: str) -> dict[str, object]:
    """Return all rows of a database, and where its sequences stand."""
    with connect(url) as connection:
        names = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'S') AND relnamespace = 'public'::regnamespace"
        every = [name for (name,) in connection.execute(names)]
        rows = {name: connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))) for name in every}
        return {name: sorted(map(repr, found)) for name, found in rows.items()}


def test_an_empty_database_is_found_as_a_new_one_is_by_whoever_comes_next(home):
    with fresh_database(home) as url:
        new = contents(url)
    with empty_database(home) as first:
        assert contents(first) == new
        engine = database.connect(first)
        checkpoints_of(database.sessions(engine))("demo")
        engine.dispose()
        with connect(first) as connection:
            connection.execute("UPDATE farm SET unlisted_images = 7")
            connection.execute("DELETE FROM alembic_version")
            connection.execute("SELECT nextval('jobs_id_seq')")
        assert contents(first) != new
    with empty_database(home) as second:
        assert second == first
        assert contents(second) == new


def test_two_at_once_have_one_each(home):
    with empty_database(home) as first, empty_database(home) as second:
        assert first != second


@pytest.mark.parametrize("change", CHANGES)
def test_a_database_of_which_more_than_rows_has_changed_is_dropped(home, change):
    with empty_database(home) as url, connect(url) as connection:
        connection.execute(CHANGES[change])
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(url)


def test_a_database_that_somebody_still_uses_is_taken_away(home, monkeypatch):
    monkeypatch.setattr(databases, "CLOSING_SECONDS", 0.05)
    with empty_database(home) as url:
        connection = connect(url)
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(url)
