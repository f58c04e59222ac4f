"""Migrations by Alembic: upgrades the database to the tables of this version. Many processes may try at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from shared.db.sessions import answered, connect_once, said
from shared.errors import SchemaError

_EXISTS = frozenset({"42P07", "42710"})  # a table, or another thing, of that name
_REVISION = re.compile(r"\d{4}")  # the form of the farm's own revisions
_OWN_PLACE = "Give the farm a database of its own, or a schema of its own by ?options=-csearch_path%3DNAME."
SCRIPTS = Path(__file__).parents[2] / "migrations"


def config(url: str) -> Config:
    """Return Alembic's configuration for the database at `url`, which `migrations/env.py` reads from it."""
    made = Config(attributes={"url": url})
    made.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(url: str) -> None:
    """Upgrade the database at `url` to the newest revision; does nothing if it has it already.

    Raises Unavailable; SchemaError if the tables belong to another program or a newer version, or cannot be created.
    """
    _refuse_unknown(current(url))
    with _explained():
        command.upgrade(config(url), "head")


def current(url: str) -> str | None:
    """Return the revision of the database at `url`; None if it has none. Raises Unavailable."""
    with _explained(), connect_once(url).connect() as connection:
        return ", ".join(MigrationContext.configure(connection).get_current_heads()) or None


@contextmanager
def _explained() -> Iterator[None]:
    """Raise SchemaError and Unavailable instead of the errors of Alembic and the database."""
    try:
        with answered():
            yield
    except CommandError as error:
        raise SchemaError(f"The tables cannot be upgraded: {error}") from error
    except DBAPIError as error:
        reason = said(error)
        if getattr(error.orig, "sqlstate", None) in _EXISTS:
            message = f"The database holds something of another program by a name of the farm's: {reason}. {_OWN_PLACE}"
            raise SchemaError(message) from error
        raise SchemaError(f"The tables cannot be made: {reason}.") from error


def _refuse_unknown(revision: str | None) -> None:
    """Raise SchemaError for a revision that this version does not know."""
    if revision is None or revision in _revisions():
        return
    if is_newer(revision):
        raise SchemaError(
            f"The database stands at {revision}, and this version of the farm knows {head()} at most: a newer one has "
            "upgraded it. Start that version, or go back to a backup of the database from before."
        )
    raise SchemaError(
        f"The database holds another program's tables: its alembic_version says {revision}, which is not a "
        f"revision of the farm. {_OWN_PLACE}"
    )


def is_newer(revision: str | None) -> bool:
    """Return whether a newer version made this revision: this version runs on it as before."""
    return revision is not None and bool(_REVISION.fullmatch(revision)) and revision > head()


def mismatch(revision: str | None) -> str | None:
    """Return why this version does not run on tables at `revision`; None if it does, as on newer ones."""
    if revision == head() or is_newer(revision):
        return None
    return f"The tables stand at {revision or 'nothing'}; this version needs {head()}."


@cache
def _revisions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(config("")).walk_revisions())


@cache
def head() -> str:
    """Return the revision that this version of the code needs."""
    revision = ScriptDirectory.from_config(config("")).get_current_head()
    if revision is None:
        raise AssertionError(f"{SCRIPTS} holds no migration")
    return revision
