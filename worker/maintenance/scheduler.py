"""The clock of the chores: each has a thread that does it when it is due and nobody else of the farm is at it."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from typing import Final

import structlog
from redis import RedisError
from sqlalchemy.exc import ProgrammingError

from shared.db import locks
from shared.db.sessions import transact
from shared.errors import StorageError, Unavailable, explain
from worker.maintenance.tasks import Chore, Desk
from worker.periodic import Periodic

log = structlog.get_logger(__name__)

_SELDOM_SECONDS: Final = 60.0  # what is due less often is looked at as often: to take it over, or to try it again


class Round:
    """One chore in this process.

    A seldom one is done once for the whole farm whenever it is due; the others by each process that finds nobody at it.
    """

    def __init__(self, chore: Chore, desk: Desk) -> None:
        self._chore = chore
        self._desk = desk
        self._is_asked = Event()
        self._trouble: str | None = None
        self._thread = Periodic(chore.name, min(chore.seconds, _SELDOM_SECONDS), self.run_once)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new; what is being done may go on or be ended."""
        self._thread.stop(wait=False)

    def ask(self) -> None:
        """Have the chore done now, due or not."""
        self._is_asked.set()
        self._thread.wake()

    def run_once(self) -> None:
        """Do the chore if it is due, unless somebody is at it. What is away is told of once."""
        try:
            self._run_once()
        except (RedisError, StorageError, Unavailable) as error:
            self._note_trouble(explain(error))
        except ProgrammingError as error:  # the tables are not there, or older than this code
            self._note_trouble(f"waiting for `farm db upgrade`: {error.orig}")
        else:
            self._note_trouble(None)

    def _run_once(self) -> None:
        with locks.taken(self._desk.sessions, self._chore.name) as is_ours:
            self._desk.punctuality.note()
            if is_ours and (self._is_asked.is_set() or self._is_due()):
                self._do()

    def _is_due(self) -> bool:
        name, seconds = self._chore.name, self._chore.seconds
        return not self._is_seldom or transact(
            self._desk.sessions, lambda session: locks.is_due(session, name, seconds)
        )

    def _do(self) -> None:
        self._is_asked.clear()  # who asks from now on may have seen what this run no longer sees
        try:
            done = self._chore.work(self._desk)
        except BaseException:
            self._is_asked.set()  # try it again soon, not when it is due
            raise
        if self._is_seldom:
            transact(self._desk.sessions, lambda session: locks.note(session, self._chore.name))
        if any(done.values()):
            log.info("chore done", chore=self._chore.name, **done)

    @property
    def _is_seldom(self) -> bool:
        return self._chore.seconds >= _SELDOM_SECONDS

    def _note_trouble(self, trouble: str | None) -> None:
        if trouble and not self._trouble:
            log.warning("chore put off", chore=self._chore.name, reason=trouble)
        elif self._trouble and not trouble:
            log.info("chore goes on", chore=self._chore.name)
        self._trouble = trouble


def rounds(table: Iterable[Chore], desk: Desk) -> dict[str, Round]:
    """Return a round for each chore, by its name."""
    return {chore.name: Round(chore, desk) for chore in table}
