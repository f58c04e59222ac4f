"""Bringing the database to the tables of this version, by Alembic. Any number of processes may try at once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from shared.errors import Unavailable

SCRIPTS = Path(__file__).parents[1] / "migrations"


def config(url: str) -> Config:
    """Return Alembic's configuration for the database at `url`; `migrations/env.py` reads the URL from it."""
    made = Config(attributes={"url": url})
    made.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(url: str) -> None:
    """Bring the database at `url` to the newest revision; does nothing where it stands there already."""
    try:
        command.upgrade(config(url), "head")
    except OperationalError as error:
        raise Unavailable("The database does not answer, so it cannot be upgraded.") from error


def current(url: str) -> str | None:
    """Return the revision that the database at `url` stands at; None: it has no tables of ours."""
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise Unavailable("The database does not answer.") from error


@cache
def head() -> str:
    """Return the revision that this version of the code needs."""
    revision = ScriptDirectory.from_config(config("")).get_current_head()
    if revision is None:
        raise AssertionError(f"{SCRIPTS} holds no migration")
    return revision
