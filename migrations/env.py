"""Runs each migration in a transaction of its own, one process at a time, and gives up rather than block the farm.

A transaction for all of them would hold the locks of the first, which stop the farm, during the work of the last.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from shared import settings
from shared.db.sessions import connect_once
from shared.db.tables import Base

ONE_AT_A_TIME = 0x57E9FA23  # key of the advisory lock


def url() -> str:
    """The URL that shared/db/migrate.py passes; under the `alembic` command that of the settings."""
    given: str | None = context.config.attributes.get("url")
    return given or settings.load().database


def migrate(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ONE_AT_A_TIME})  # until the connection closes
    # A change that would wait behind the farm's own transactions makes them wait behind it: give up instead.
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.commit()
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


with connect_once(url()).connect() as connection:
    migrate(connection)
