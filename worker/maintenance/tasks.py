"""The chores of a farm: what has to be done now and then, by any process.

A new chore is one more entry of the table; how often a seldom one is due stands in `shared.db.locks`. Any number of
processes may do a chore at a time, and each may be ended anywhere, because the lock (the same module) only saves work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final

from redis import Redis
from sqlalchemy import select

from shared.accounts import audit, usage
from shared.db.farm import FarmId
from shared.db.locks import SECONDS
from shared.db.sessions import Sessions, transact
from shared.db.tables import Worker
from shared.maintenance import dependencies, garbage, outbox, pictures, retention, sheets
from shared.maintenance.deadlines import run_due
from shared.media import uploads
from shared.media.storage import Storage
from shared.messaging.events import Events, JobEnded
from shared.messaging.tickets import Tickets, forget, queues_of_workers
from shared.queue import reaper
from shared.settings import Settings
from shared.webhooks import deliveries, sending
from worker.supervisor.clock_guard import ClockGuard

_LITTER_SECONDS: Final = 24 * 3600.0  # no file takes so long to write, and no two clocks are so far apart


@dataclass(frozen=True)
class ChoreContext:
    """The settings and connections that chores use."""

    settings: Settings
    sessions: Sessions
    farm_id: FarmId
    redis: Redis
    storage: Storage
    tickets: Tickets
    events: Events
    clock_guard: ClockGuard  # of this process's connection to the database


RunChore = Callable[[ChoreContext], Mapping[str, object]]
"""Does a chore and returns what it did, for the log; if all values are false, nothing is logged. Raises StorageError,
Unavailable or RedisError during an outage, after which the chore is tried again."""


@dataclass(frozen=True)
class Chore:
    """One chore, due every so many seconds."""

    name: str
    seconds: float
    run: RunChore


def table(settings: Settings) -> tuple[Chore, ...]:
    """Return the chores of a farm."""
    at_once = min(settings.look_seconds, settings.beat_seconds)
    return (
        Chore("due", at_once, _run_due),
        Chore("reap", at_once, _reap),
        Chore("deliver", at_once, deliver),
        Chore("webhooks", at_once, send_webhooks),
        Chore("gallery", at_once, _list_pictures),
        Chore("usage", at_once, _fold_usage),
        *(Chore(name, seconds, _SELDOM[name]) for name, seconds in SECONDS.items()),
    )


def _run_due(context: ChoreContext) -> Mapping[str, object]:
    """Cancel images that have not started in time, and queue those that were held until now."""
    run_due(context.sessions, context.tickets, context.events)
    return {}


def _reap(context: ChoreContext) -> Mapping[str, object]:
    """Mark workers dead whose lease has run out, as each worker does; here also when no worker is left."""
    lease_seconds = context.settings.lease_seconds
    is_on_time = context.clock_guard.seconds_on_time() >= lease_seconds
    reap = partial(reaper.reap, me_on_time=is_on_time, lease_seconds=lease_seconds)
    return {"declared dead": transact(context.sessions, reap)}


def deliver(context: ChoreContext) -> Mapping[str, object]:
    """Deliver what has happened to those who have something to do then."""
    make_sheet = partial(
        sheets.make,
        sessions=context.sessions,
        storage=context.storage,
        most_pixels=context.settings.limits.max_pixels,
    )
    record = partial(deliveries.record, sessions=context.sessions, base=context.settings.base_url)
    settle = partial(dependencies.settle, sessions=context.sessions, tickets=context.tickets, events=context.events)
    consumers = [settle, partial(_announce, context), record, make_sheet]
    done = outbox.deliver(context.sessions, consumers, context.settings.lease_seconds)
    return {"failed": done.failed, "set aside": done.set_aside}


def _announce(context: ChoreContext, event: outbox.OutboxEvent) -> None:
    """Tell those who follow all ends of an owner's jobs."""
    if event.kind == outbox.EventKind.JOB_ENDED and event.state is not None:
        context.events.publish(JobEnded(event.id, event.job_id, event.owner, event.state))


def send_webhooks(context: ChoreContext) -> Mapping[str, object]:
    """Send the messages that are due to those who asked for them."""
    return asdict(sending.send_due(context.sessions, context.settings.limits.inside_networks))


def _list_pictures(context: ChoreContext) -> Mapping[str, object]:
    """Read what new pictures are found by, and list those of before there was a list."""
    pictures.list_pictures(context.sessions)
    return {}


def _fold_usage(context: ChoreContext) -> Mapping[str, object]:
    """Add what attempts took that have ended to their owners' days."""
    while transact(context.sessions, usage.fold) == usage.BATCH:
        pass
    return {}


def _forget_queues(context: ChoreContext) -> Mapping[str, object]:
    """Remove the direct queues of dead workers; a worker that leaves in order removes its own."""
    with_queue = queues_of_workers(context.redis, context.farm_id)  # read first: a worker's row comes before its queue
    living = transact(context.sessions, lambda session: set(session.scalars(select(Worker.id))))
    gone = with_queue - living
    for worker_id in gone:
        forget(context.redis, context.farm_id, worker_id)
    return {"workers": sorted(gone)}


def _settle_overdue(context: ChoreContext) -> Mapping[str, object]:
    """Queue or cancel jobs that wait for others and heard of no end."""
    settle = dependencies.settle_overdue
    return {"jobs": settle(sessions=context.sessions, tickets=context.tickets, events=context.events)}


def _delete_jobs(context: ChoreContext) -> Mapping[str, object]:
    days = context.settings.keep_days
    return {"jobs": retention.delete_jobs(context.sessions, context.storage, days)} if days else {}


def _collect_jobs(context: ChoreContext) -> Mapping[str, object]:
    return {"jobs": garbage.collect_jobs(context.sessions, context.storage)}


def _remove_pictures(context: ChoreContext) -> Mapping[str, object]:
    """Delete the files of pictures that were deleted and can no longer be restored."""
    return {"pictures": pictures.remove_deleted(context.sessions, context.storage)}


def _delete_unused_uploads(context: ChoreContext) -> Mapping[str, object]:
    return {"pictures": uploads.delete_unused(context.sessions, context.storage, context.settings.upload_days)}


def _collect_attempts(context: ChoreContext) -> Mapping[str, object]:
    attempts = garbage.collect_attempts(context.sessions, context.storage)
    return {"objects": attempts, "sheets": garbage.collect_sheets(context.sessions, context.storage)}


def _tidy_storage(context: ChoreContext) -> Mapping[str, object]:
    return {"objects": context.storage.tidy(_LITTER_SECONDS)}


def _forget_history(context: ChoreContext) -> Mapping[str, object]:
    days = context.settings.history_days
    return {"lines": retention.forget_history(context.sessions, days)} if days else {}


def _forget_audit(context: ChoreContext) -> Mapping[str, object]:
    forgotten = 0
    while some := transact(context.sessions, audit.forget):
        forgotten += some
    return {"lines": forgotten}


def _forget_outbox(context: ChoreContext) -> Mapping[str, object]:
    return {"events": outbox.forget(context.sessions), "messages": deliveries.forget(context.sessions)}


_SELDOM: Final[Mapping[str, RunChore]] = {
    "queues": _forget_queues,
    "dependencies": _settle_overdue,
    "jobs": _delete_jobs,
    "pictures": _remove_pictures,
    "objects": _collect_jobs,
    "uploads": _delete_unused_uploads,
    "attempts": _collect_attempts,
    "litter": _tidy_storage,
    "history": _forget_history,
    "outbox": _forget_outbox,
    "audit": _forget_audit,
}
