"""The farm's id: made once, kept in PostgreSQL, and part of every name that the farm uses on shared servers.

Two farms may use one Redis server, even one database of it: their keys, channels and queues differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from sqlalchemy import select
from sqlalchemy.exc import NoResultFound, ProgrammingError
from sqlalchemy.orm import Session

from shared.db.sessions import Sessions, transact
from shared.db.tables import Farm
from shared.errors import Unavailable

_AWAY_SECONDS: Final = 1.0  # after a failure the next callers fail at once, without waiting for a connection


class FarmId:
    """Reads the id once and keeps it. Threads may share it."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._lock = Lock()
        self._value = ""
        self._away_until = 0.0  # monotonic

    @property
    def value(self) -> str:
        """The id. Raises Unavailable until the database has answered once."""
        if self._value:
            return self._value
        with self._lock:
            if not self._value:
                self._value = self._read()
            return self._value

    @property
    def prefix(self) -> str:
        """The beginning of all keys and channels of this farm in Redis. Raises Unavailable."""
        return f"farm:{self.value}:"

    def key(self, name: str) -> str:
        """Return the name that `name` has in Redis for this farm. Raises Unavailable."""
        return f"{self.prefix}{name}"

    def _read(self) -> str:
        if time.monotonic() < self._away_until:
            raise Unavailable("The farm's id is not known yet: the database does not answer.")
        try:
            return self._ask()
        except Unavailable:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            raise


def farm_id(sessions: Sessions) -> FarmId:
    """Return the id of the farm that owns the database. It is read at its first use."""

    def ask() -> str:
        try:
            return transact(sessions, read)
        except (ProgrammingError, NoResultFound) as error:  # the tables are older than this code, or missing
            raise Unavailable("The database does not know the farm's id yet: run `farm db upgrade`.") from error

    return FarmId(ask)


def read(session: Session) -> str:
    """Return the id."""
    return session.scalars(select(Farm.id)).one()
