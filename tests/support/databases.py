"""Databases that tests use one after another: to empty one takes a tenth of the time that a new one takes.

A test finds what it finds in a new one: no connections, the template's rows, sequences at their start, and tables that
the planner knows as little of. A database that cannot be given back like that is dropped.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from tests.support.servers import fresh_database

MOST_PAGES: Final = 10  # a table that was never analyzed is planned for as if it had so many, if it has fewer
CLOSING_SECONDS: Final = 1.0  # what was closed just now may still be there
# Whatever is made, altered, dropped or analyzed is written to the system's tables; VACUUM writes over numbers there.
_DEFINITIONS: Final = """
    SELECT
        sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid) + pg_stat_get_tuples_deleted(oid))
            FILTER (WHERE relnamespace = 'pg_catalog'::regnamespace AND NOT relisshared),
        sum(relpages + reltuples) FILTER (WHERE relnamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
         WHERE datname = current_database())
    FROM pg_class
"""
_TABLES: Final = """
    SELECT relname, pg_table_size(oid) / current_setting('block_size')::integer
    FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
"""

_free: defaultdict[Path, list[_Database]] = defaultdict(list)


@contextmanager
def empty_database(home: Path) -> Iterator[str]:
    """Yield the SQLAlchemy URL of a migrated, empty database that nobody else uses."""
    free = _free[home]
    database = free.pop() if free else _Database(home)
    yield database.url
    if database.is_as_new():
        free.append(database)
    else:
        database.drop()


def drop_databases(home: Path) -> None:
    """Drop the databases of `home` that wait for a test."""
    for database in _free.pop(home, []):
        database.drop()


class _Database:
    """One with its URL and a connection that looks after it."""

    def __init__(self, home: Path) -> None:
        self._context = ExitStack()
        self.url = self._context.enter_context(fresh_database(home))
        address = self.url.replace("+psycopg", "", 1)
        self._connection = self._context.enter_context(psycopg.connect(address, autocommit=True))
        self._connection.execute("SET session_replication_role = replica")  # no order among the tables
        self._definitions = self._ask(_DEFINITIONS)
        self._rows = {table: self._rows_of(table) for table, _ in self._ask(_TABLES)}

    def drop(self) -> None:
        self._context.close()

    def is_as_new(self) -> bool:
        """Empty it, and return whether it is now as it was when it was made."""
        try:
            if self._is_in_use() or self._ask(_DEFINITIONS) != self._definitions:
                return False
            tables = self._ask(_TABLES)
            if any(pages > MOST_PAGES for _, pages in tables):
                return False
            self._empty([table for table, _ in tables])
        except psycopg.Error:
            return False
        return True

    def _ask(self, statement: LiteralString) -> list[TupleRow]:
        return self._connection.execute(statement).fetchall()

    def _rows_of(self, table: str) -> list[TupleRow]:
        rows = sql.SQL("SELECT jsonb_agg(to_jsonb(t))::text FROM {} t").format(sql.Identifier(table))
        return self._connection.execute(rows).fetchall()

    def _is_in_use(self) -> bool:
        others = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        end = time.monotonic() + CLOSING_SECONDS
        while is_in_use := bool(self._ask(others)):
            if time.monotonic() > end:
                break
            time.sleep(0.001)
        return is_in_use

    def _empty(self, tables: list[str]) -> None:
        with self._connection.transaction():
            for table in tables:
                name = sql.Identifier(table)
                self._connection.execute(sql.SQL("DELETE FROM {}").format(name))
                if table in self._rows:
                    put = sql.SQL("INSERT INTO {} SELECT * FROM jsonb_populate_recordset(NULL::{}, %s)")
                    self._connection.execute(put.format(name, name), self._rows[table][0])
            self._connection.execute("SELECT setval(seqrelid, seqstart, false) FROM pg_sequence")
