"""Chores in the database: which are being done, when each was done last, and which are overdue.

The lock saves work and guards nothing: if a connection breaks, the lock ends while its holder goes on. So any number of
processes may do a chore at a time, and each may be ended anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, answered

APPLICATION: Final = "farm chores"
"""The application name, in PostgreSQL, of a process that does chores; `farm doctor` looks for it."""

_HOUR: Final = 3600.0
SECONDS: Final[Mapping[str, float]] = {
    "queues": 60.0,
    "dependencies": 60.0,
    "pictures": 600.0,
    "jobs": _HOUR,
    "objects": _HOUR,
    "uploads": _HOUR,
    "attempts": 6 * _HOUR,
    "litter": 24 * _HOUR,
    "history": 24 * _HOUR,
    "outbox": 24 * _HOUR,
    "audit": 24 * _HOUR,
}
"""How often each seldom chore is due; `worker/maintenance/tasks.py` says what each does."""

_LATE_SECONDS: Final = 600.0  # a chore may take long, and one that fails is tried again each minute

_LOCKS: Final = 0x57E9FA25  # the advisory locks of chores; PostgreSQL has room for one more number beside it

# Of the session, not of a transaction: a chore may take an hour, and an open transaction would keep vacuum away.
_TAKE = text("SELECT pg_try_advisory_lock(:locks, hashtext(:name))")
_LEAVE = text("SELECT pg_advisory_unlock(:locks, hashtext(:name))")

_IS_DUE = text("""
    SELECT NOT EXISTS (
        SELECT FROM chores
        WHERE name = :name
          AND done_at > clock_timestamp() - make_interval(secs => :seconds)
          -- A time in the future was recorded by a clock that has been put back.
          AND done_at <= clock_timestamp()
    )
""")

_NOTE = text("""
    INSERT INTO chores (name, done_at)
    VALUES (:name, clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET done_at = excluded.done_at
""")

IS_ANYBODY: Final = """EXISTS (
        SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = :application
    )"""
"""The condition that a process which does chores is connected to the database."""

_STANDING: Final = text(f"SELECT {IS_ANYBODY}")

_OVERDUE = text("""
    SELECT known.name, chores.done_at
    FROM unnest(CAST(:names AS text[]), CAST(:seconds AS float8[])) AS known (name, seconds)
    LEFT JOIN chores ON chores.name = known.name
    WHERE chores.done_at < clock_timestamp() - make_interval(secs => known.seconds + :late_seconds)
       -- Never done, though a process that does chores has been connected for long.
       OR (
           chores.done_at IS NULL
           AND EXISTS (
               SELECT
               FROM pg_stat_activity
               WHERE datname = current_database()
                 AND application_name = :application
                 AND backend_start < clock_timestamp() - make_interval(secs => :late_seconds)
           )
       )
    ORDER BY known.name
""")


@dataclass(frozen=True)
class Overdue:
    """A chore that should have been done by now: no process does chores, or it fails, or it takes very long."""

    name: str
    done_at: datetime | None  # the last time; None: never


@dataclass(frozen=True)
class Standing:
    """The state of the farm's chores."""

    is_anybody: bool  # a process that does them lives
    overdue: tuple[Overdue, ...]


@contextmanager
def chore_lock(sessions: Sessions, name: str) -> Iterator[bool]:
    """Try to hold the lock of a chore within the block; False if another process has it. Raises Unavailable."""
    which = {"locks": _LOCKS, "name": name}
    with sessions() as session:
        with answered():
            connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            is_ours = bool(connection.scalar(_TAKE, which))
        try:
            yield is_ours
        finally:
            if is_ours:
                try:
                    connection.execute(_LEAVE, which)
                except DBAPIError:
                    connection.invalidate()  # ends the lock: it must not stay in the pool with the connection


def is_due(session: Session, name: str, seconds: float) -> bool:
    """True unless the chore was done within `seconds`, by the database's clock."""
    return bool(session.scalar(_IS_DUE, {"name": name, "seconds": seconds}))


def record_done(session: Session, name: str) -> None:
    """Record that a chore has been done now."""
    session.execute(_NOTE, {"name": name})


def standing(session: Session) -> Standing:
    """Return whether any process does the farm's chores, and which of the seldom ones are overdue."""
    late = {"names": list(SECONDS), "seconds": list(SECONDS.values()), "late_seconds": _LATE_SECONDS}
    overdue = session.execute(_OVERDUE, late | {"application": APPLICATION})
    return Standing(
        is_anybody=bool(session.scalar(_STANDING, {"application": APPLICATION})),
        overdue=tuple(Overdue(name, done_at) for name, done_at in overdue),
    )
