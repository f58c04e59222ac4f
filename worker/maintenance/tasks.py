"""The chores of a farm: what has to be done now and then, by nobody in particular.

A new one is one more entry of the table; how often a seldom one is due stands in `shared.db.locks`. Any number
of processes may do one at a time, and each may be ended anywhere, because the lock (the same module) only saves work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from redis import Redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.farm import FarmId
from shared.db.locks import SECONDS
from shared.db.sessions import Sessions, transact
from shared.db.tables import Worker
from shared.maintenance import garbage, retention
from shared.maintenance.deadlines import run_due
from shared.media import uploads
from shared.media.storage import Storage
from shared.messaging.events import Events
from shared.messaging.tickets import Tickets, forget, queues_of_workers
from shared.queue import reaper
from shared.settings import Settings
from worker.supervisor.clock_guard import Punctuality

_LITTER_SECONDS: Final = 24 * 3600.0  # nothing is written for so long, and no two clocks are so far apart


@dataclass(frozen=True)
class Desk:
    """What chores are done with."""

    settings: Settings
    sessions: Sessions
    farm_id: FarmId
    redis: Redis
    storage: Storage
    tickets: Tickets
    events: Events
    punctuality: Punctuality  # of this process's way to the database


Work = Callable[[Desk], Mapping[str, object]]
"""Does a chore and returns what it did, for the log; nothing worth a line: all of it false. Raises StorageError,
Unavailable, RedisError when something is away: it is tried again."""


@dataclass(frozen=True)
class Chore:
    """One chore, due every so many seconds."""

    name: str
    seconds: float
    work: Work


def table(settings: Settings) -> tuple[Chore, ...]:
    """Return the chores of a farm."""
    at_once = min(settings.look_seconds, settings.beat_seconds)
    return (
        Chore("due", at_once, _run_due),
        Chore("reap", at_once, _reap),
        *(Chore(name, seconds, _SELDOM[name]) for name, seconds in SECONDS.items()),
    )


def _run_due(desk: Desk) -> Mapping[str, object]:
    """Cancel what has not started in time, and queue what was held until now."""
    run_due(desk.sessions, desk.tickets, desk.events)
    return {}


def _reap(desk: Desk) -> Mapping[str, object]:
    """Declare workers past their lease dead, as each worker does: here also if none is left."""
    lease_seconds = desk.settings.lease_seconds
    is_on_time = desk.punctuality.seconds() >= lease_seconds
    return {
        "declared dead": transact(
            desk.sessions, lambda session: reaper.reap(session, me_on_time=is_on_time, lease_seconds=lease_seconds)
        )
    }


def _forget_queues(desk: Desk) -> Mapping[str, object]:
    """Remove the direct queues of workers that are gone: those that leave in order do it themselves."""
    with_queue = queues_of_workers(desk.redis, desk.farm_id)  # read first: a worker has a row before it has a queue
    gone = with_queue - transact(desk.sessions, _workers)
    for worker_id in gone:
        forget(desk.redis, desk.farm_id, worker_id)
    return {"workers": sorted(gone)}


def _workers(session: Session) -> set[int]:
    return set(session.scalars(select(Worker.id)))


def _delete_jobs(desk: Desk) -> Mapping[str, object]:
    days = desk.settings.keep_days
    return {"jobs": retention.delete_jobs(desk.sessions, desk.storage, days)} if days else {}


def _collect_jobs(desk: Desk) -> Mapping[str, object]:
    return {"jobs": garbage.collect_jobs(desk.sessions, desk.storage)}


def _delete_unused_uploads(desk: Desk) -> Mapping[str, object]:
    return {"pictures": uploads.delete_unused(desk.sessions, desk.storage, desk.settings.upload_days)}


def _collect_attempts(desk: Desk) -> Mapping[str, object]:
    return {"objects": garbage.collect_attempts(desk.sessions, desk.storage)}


def _tidy_storage(desk: Desk) -> Mapping[str, object]:
    return {"objects": desk.storage.tidy(_LITTER_SECONDS)}


def _forget_history(desk: Desk) -> Mapping[str, object]:
    days = desk.settings.history_days
    return {"lines": retention.forget_history(desk.sessions, days)} if days else {}


_SELDOM: Final[Mapping[str, Work]] = {
    "queues": _forget_queues,
    "jobs": _delete_jobs,
    "objects": _collect_jobs,
    "uploads": _delete_unused_uploads,
    "attempts": _collect_attempts,
    "litter": _tidy_storage,
    "history": _forget_history,
}
