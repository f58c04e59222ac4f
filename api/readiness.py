"""Whether the farm can take jobs, part by part. The answer is open to everybody, so addresses go to the log alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.background_polls import Poll, PollResult
from shared.db import revisions
from shared.db.sessions import Sessions, probe
from shared.errors import FarmError, StorageAway, Unavailable, explain
from shared.maintenance.restored_database import keep_ids_ahead
from shared.media.storage import Storage
from shared.messaging.events import Events

log = structlog.get_logger(__name__)

OK: Final = "ok"
STORAGE: Final = "storage"
_OTHERWISE: Final = {
    "database": "does not answer",
    "migrations": "the version of the tables is not known: run `farm db upgrade` when the database answers",
    STORAGE: "the storage takes no pictures; the log says why",
}
_SECONDS: Final = 1.0  # between two polls
_FOLDER_SECONDS: Final = 5.0  # between two that write
_BUCKET_SECONDS: Final = 60.0  # and between two for which somebody is paid
_SILENT_SECONDS: Final = 5.0  # after which a check without an answer is reported


@dataclass(frozen=True)
class PartStatus:
    """The status of one part: `ok`, or what is wrong with it, and the age of that result."""

    words: str
    age_seconds: float | None = None


class Readiness:
    """Polls each part on a thread of its own, and logs when one fails and when it is ready again."""

    def __init__(self, factory: Sessions, storage: Storage, events: Events) -> None:
        self._checks: dict[str, Callable[[], object]] = {
            "database": lambda: probe(factory),
            "migrations": lambda: _check_tables(factory),
            STORAGE: lambda: _check_storage(factory, storage),
            "redis": lambda: _check_redis(events),
        }
        seconds = _BUCKET_SECONDS if storage.is_bucket else _FOLDER_SECONDS
        self._parts = {
            part: Poll(partial(self.check, part), partial(_pace, seconds if part == STORAGE else _SECONDS))
            for part in self._checks
        }
        self._missing: set[str] = set()

    def known(self) -> dict[str, PartStatus]:
        """Return the status of each part; at once, unless no poll has ended yet."""
        for poll in self._parts.values():
            poll.ask()
        return {part: _status(poll.get()) for part, poll in self._parts.items()}

    def storage(self) -> PartStatus:
        """Return the status of the storage alone."""
        return _status(self._parts[STORAGE].get())

    def check(self, part: str) -> str:
        """Check one part now; return `ok`, or what is wrong with it."""
        try:
            self._checks[part]()
        except (FarmError, SQLAlchemyError, OSError) as error:
            if part not in self._missing:
                self._missing.add(part)
                log.warning("a part is not ready", part=part, reason=explain(error))
            return error.words if isinstance(error, StorageAway) else _OTHERWISE.get(part, str(error))
        if part in self._missing:
            self._missing.remove(part)
            log.info("a part is ready again", part=part)
        return OK

    def close(self) -> None:
        """Stop polling."""
        for poll in self._parts.values():
            poll.close()


def _pace(seconds: float, words: str | None) -> float:
    """Return the seconds until the next poll: failed parts are checked more often."""
    return seconds if words == OK else min(seconds, _FOLDER_SECONDS)


def _status(result: PollResult[str]) -> PartStatus:
    if result.silent_seconds >= _SILENT_SECONDS or result.value is None:
        return PartStatus(f"has not answered for {result.silent_seconds:.0f} s", result.age_seconds)
    return PartStatus(result.value, result.age_seconds)


def _check_tables(factory: Sessions) -> None:
    if mismatch := revisions.mismatch(probe(factory)):
        raise Unavailable(mismatch)


def _check_storage(factory: Sessions, storage: Storage) -> None:
    """Store and delete an object, and make sure that no new job gets an id that the storage already has.

    If the database has not yet said whose storage it is, that is the database's fault.
    """
    try:
        storage.check()
        keep_ids_ahead(factory, storage)
    except Unavailable:
        return
    except StorageAway as error:
        if not isinstance(error.__cause__, Unavailable):
            raise


def _check_redis(events: Events) -> None:
    if trouble := events.trouble():
        raise Unavailable(trouble)
