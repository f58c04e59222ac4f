"""Chores in the database: who is at one now, and when it was done last.

The lock saves work, it guards nothing: a connection that breaks ends it while its holder goes on. So every chore is
one that any number may do at a time, and that may be ended anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared.database import Sessions, answered

APPLICATION: Final = "farm chores"
"""What PostgreSQL knows the connections of a process by that does chores; `farm doctor` looks for it."""

_LOCKS: Final = 0x57E9FA25  # the advisory locks of chores; PostgreSQL has room for one more number beside it

# Of the session, not of a transaction: a chore may take an hour, and an open transaction would keep vacuum away.
_TAKE = text("SELECT pg_try_advisory_lock(:locks, hashtext(:name))")
_LEAVE = text("SELECT pg_advisory_unlock(:locks, hashtext(:name))")

_IS_DUE = text("""
    SELECT NOT EXISTS (
        SELECT FROM chores
        WHERE name = :name
          AND done_at > clock_timestamp() - make_interval(secs => :seconds)
          -- What was done in the future was noted by a clock that has been put back.
          AND done_at <= clock_timestamp()
    )
""")

_NOTE = text("""
    INSERT INTO chores (name, done_at)
    VALUES (:name, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at
""")


@contextmanager
def taken(sessions: Sessions, name: str) -> Iterator[bool]:
    """Hold the lock of a chore within the block: True if it is ours, False if somebody is at it. Raises Unavailable."""
    which = {"locks": _LOCKS, "name": name}
    with sessions() as session:
        with answered():
            connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            is_ours = bool(connection.scalar(_TAKE, which))
        try:
            yield is_ours
        finally:
            if is_ours:
                _leave(connection, which)


def is_due(session: Session, name: str, seconds: float) -> bool:
    """True unless the chore was done within `seconds`, by the database's clock."""
    return bool(session.scalar(_IS_DUE, {"name": name, "seconds": seconds}))


def note(session: Session, name: str) -> None:
    """Record that a chore has been done now."""
    session.execute(_NOTE, {"name": name})


def _leave(connection: Connection, which: dict[str, object]) -> None:
    try:
        connection.execute(_LEAVE, which)
    except DBAPIError:
        connection.invalidate()  # the lock ends with the connection; it must not lie in the pool with it
