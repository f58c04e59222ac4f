"""Migrations by Alembic: upgrades the database to the tables of this version. Many processes may try at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from shared.db.revisions import SCRIPTS, head, is_newer, known
from shared.db.sessions import answered, connect_once, said
from shared.errors import SchemaError

_EXISTS = frozenset({"42P07", "42710"})  # a table, or another thing, of that name
_OWN_PLACE = "Give the farm a database of its own, or a schema of its own by ?options=-csearch_path%3DNAME."


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
    if revision is None or revision in known():
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
