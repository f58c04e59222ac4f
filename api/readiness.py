"""Whether the farm can take jobs, part by part. The answer is open to everybody, so reasons go to the log alone."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shared import migrate
from shared.database import Sessions, probe
from shared.errors import FarmError, Unavailable
from shared.events import Events
from shared.storage import Storage

log = structlog.get_logger(__name__)

OK = "ok"


def look(factory: Sessions, storage: Storage, events: Events) -> dict[str, str]:
    """Return `ok` for each part, or what is wrong with it. Stores and deletes an object."""
    return {
        "database": _tell(lambda: probe(factory), "does not answer"),
        "migrations": _tell(
            lambda: _check_tables(factory),
            "the tables are not seen to be this version's: run `farm db upgrade` while the database answers",
        ),
        "storage": _tell(storage.check, "takes no pictures; the log says why"),
        "redis": _tell(
            lambda: _check_redis(events),
            "Redis does not answer: what runs is finished, what waits starts when it is back",
        ),
    }


def _tell(check: Callable[[], object], otherwise: str) -> str:
    try:
        check()
    except (FarmError, SQLAlchemyError, OSError) as error:
        log.warning("a part is not ready", says=otherwise, reason=str(error))
        return otherwise
    return OK


def _check_tables(factory: Sessions) -> None:
    current, head = probe(factory), migrate.head()
    if current != head:
        raise Unavailable(f"The tables stand at {current or 'nothing'}, this version needs {head}.")


def _check_redis(events: Events) -> None:
    if not events.alive():
        raise Unavailable("Redis does not answer.")
