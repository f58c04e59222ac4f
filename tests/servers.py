"""The real servers that tests run on, as the farm itself starts them; one set for each run of pytest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import create_engine

from shared import addresses, migrate
from shared.tables import Base

TEMPLATE = "template_of_tests"
_numbers = count(1)


def make_template(home: Path) -> None:
    """Make the migrated database that every test's own is a copy of."""
    with _administrator(home) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    if list(Path("migrations/versions").glob("*.py")):
        migrate.upgrade(addresses.database_url(home, TEMPLATE))
    else:
        engine = create_engine(addresses.database_url(home, TEMPLATE))
        Base.metadata.create_all(engine)
        engine.dispose()


@contextmanager
def fresh_database(home: Path, *, template: str = TEMPLATE) -> Iterator[str]:
    """Yield the SQLAlchemy URL of a database of its own, gone afterwards whoever still holds it."""
    name = f"test_{next(_numbers)}"
    with _administrator(home) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        yield addresses.database_url(home, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any FARM_* of the person who runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FARM_")}


def _administrator(home: Path) -> psycopg.Connection:
    return psycopg.connect(
        host=str(addresses.socket_folder(home)), user=addresses.DATABASE, dbname="postgres", autocommit=True
    )
