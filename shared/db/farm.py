"""The farm's id: made once, kept in PostgreSQL, and part of all that the farm calls its own on servers that it shares.

Two farms may use one Redis server, even one database of it: their keys, channels and queues never meet.
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

_AWAY_SECONDS: Final = 1.0  # after a failure the next are told at once: whoever asks is not to wait for a connection


class FarmId:
    """Knows the id from the first time that the database tells it. Threads may share it."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._lock = Lock()
        self._value = ""
        self._away_until = 0.0  # monotonic

    @property
    def value(self) -> str:
        """The id. Raises Unavailable while the database has not told it yet."""
        if self._value:
            return self._value
        with self._lock:
            if not self._value:
                self._value = self._asked()
            return self._value

    @property
    def prefix(self) -> str:
        """What all keys and channels of this farm in Redis begin with. Raises Unavailable."""
        return f"farm:{self.value}:"

    def key(self, name: str) -> str:
        """Return what this farm calls `name` in Redis. Raises Unavailable."""
        return f"{self.prefix}{name}"

    def _asked(self) -> str:
        if time.monotonic() < self._away_until:
            raise Unavailable("The database has not told the farm's id yet.")
        try:
            return self._ask()
        except Unavailable:
            self._away_until = time.monotonic() + _AWAY_SECONDS
            raise


def farm_id(sessions: Sessions) -> FarmId:
    """Return the id of the farm whose database this is. Nothing is asked yet."""
    return FarmId(lambda: _told(sessions))


def read(session: Session) -> str:
    """Return the id."""
    return session.scalars(select(Farm.id)).one()


def _told(sessions: Sessions) -> str:
    try:
        return transact(sessions, read)
    except (ProgrammingError, NoResultFound) as error:  # the tables are older than this code, or not there
        raise Unavailable("The database does not know the farm's id yet: run `farm db upgrade`.") from error
