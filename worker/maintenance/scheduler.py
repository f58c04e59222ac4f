"""The clock of the chores: each has a thread that does it when it is due and no other process of the farm does it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from threading import Event
from typing import Final

import structlog
from redis import RedisError
from sqlalchemy.exc import ProgrammingError

from shared.db import locks
from shared.db.sessions import transact
from shared.errors import StorageError, Unavailable, explain
from worker.maintenance.tasks import Chore, ChoreContext
from worker.periodic import Periodic

log = structlog.get_logger(__name__)

_SELDOM_SECONDS: Final = 60.0  # a chore that is due less often is checked this often, to take it over or try it again


class ScheduledChore:
    """One chore in this process.

    A seldom one is done once for the whole farm when it is due; the others are done by each process that gets the lock.
    """

    def __init__(self, chore: Chore, context: ChoreContext) -> None:
        self._chore = chore
        self._context = context
        self._is_requested = Event()
        self._trouble: str | None = None
        self._thread = Periodic(chore.name, min(chore.seconds, _SELDOM_SECONDS), self.run_once)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin no other run; the present one may go on or be ended."""
        self._thread.stop(wait=False)

    def request(self) -> None:
        """Have the chore done now, due or not."""
        self._is_requested.set()
        self._thread.wake()

    def run_once(self) -> None:
        """Do the chore if it is due and no other process does it. An outage is logged once."""
        try:
            with locks.chore_lock(self._context.sessions, self._chore.name) as is_taken:
                self._context.clock_guard.tick()
                if is_taken and (self._is_requested.is_set() or self._is_due()):
                    self._run()
        except (RedisError, StorageError, Unavailable) as error:
            self._set_trouble(explain(error))
        except ProgrammingError as error:  # the tables are not there, or older than this code
            self._set_trouble(f"waiting for `farm db upgrade`: {error.orig}")
        else:
            self._set_trouble(None)

    def _is_due(self) -> bool:
        is_due = partial(locks.is_due, name=self._chore.name, seconds=self._chore.seconds)
        return not self._is_seldom or transact(self._context.sessions, is_due)

    def _run(self) -> None:
        self._is_requested.clear()  # a later request may be about something that this run no longer sees
        try:
            done = self._chore.run(self._context)
        except BaseException:
            self._is_requested.set()  # try it again soon, not when it is due
            raise
        if self._is_seldom:
            transact(self._context.sessions, partial(locks.record_done, name=self._chore.name))
        if any(done.values()):
            log.info("chore done", chore=self._chore.name, **done)

    @property
    def _is_seldom(self) -> bool:
        return self._chore.seconds >= _SELDOM_SECONDS

    def _set_trouble(self, trouble: str | None) -> None:
        if trouble and not self._trouble:
            log.warning("chore put off", chore=self._chore.name, reason=trouble)
        elif self._trouble and not trouble:
            log.info("chore goes on", chore=self._chore.name)
        self._trouble = trouble


def schedule(table: Iterable[Chore], context: ChoreContext) -> dict[str, ScheduledChore]:
    """Return the chores of a table by name, each with its own clock."""
    return {chore.name: ScheduledChore(chore, context) for chore in table}
