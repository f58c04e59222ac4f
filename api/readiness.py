"""Whether the farm can take jobs, part by part. The answer is open to everybody, so reasons go to the log alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared import migrate
from shared.database import Sessions, probe
from shared.errors import FarmError, StorageAway, Unavailable, explain
from shared.events import Events
from shared.storage import Storage

log = structlog.get_logger(__name__)

OK: Final = "ok"
_OTHERWISE: Final = {
    "database": "does not answer",
    "migrations": "the tables are not seen to be this version's: run `farm db upgrade` while the database answers",
    "storage": "takes no pictures; the log says why",
}


class Readiness:
    """Looks at each part; the log hears of one when it goes and when it is back. One thread at a time."""

    def __init__(self, factory: Sessions, storage: Storage, events: Events) -> None:
        self._checks: dict[str, Callable[[], object]] = {
            "database": lambda: probe(factory),
            "migrations": lambda: _check_tables(factory),
            "storage": lambda: _check_storage(storage),
            "redis": lambda: _check_redis(events),
        }
        self._missing: set[str] = set()

    def look(self) -> dict[str, str]:
        """Return `ok` for each part, or what is wrong with it. Stores and deletes an object."""
        return {part: self._tell(part, check) for part, check in self._checks.items()}

    def _tell(self, part: str, check: Callable[[], object]) -> str:
        try:
            check()
        except (FarmError, SQLAlchemyError, OSError) as error:
            if part not in self._missing:
                self._missing.add(part)
                log.warning("a part is not ready", part=part, reason=explain(error))
            return _OTHERWISE.get(part, str(error))
        if part in self._missing:
            self._missing.remove(part)
            log.info("a part is ready again", part=part)
        return OK


def _check_tables(factory: Sessions) -> None:
    current, head = probe(factory), migrate.head()
    if current != head:
        raise Unavailable(f"The tables stand at {current or 'nothing'}, this version needs {head}.")


def _check_storage(storage: Storage) -> None:
    """Store and delete an object. That the database has not told yet whose storage it is, is the database's trouble."""
    try:
        storage.check()
    except StorageAway as error:
        if not isinstance(error.__cause__, Unavailable):
            raise


def _check_redis(events: Events) -> None:
    if trouble := events.trouble():
        raise Unavailable(trouble)
