"""Settles the jobs that waited for one that has ended or was deleted; `shared.queue.dependencies` holds the rules."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from shared.accounts.scope import EVERYBODYS
from shared.db.sessions import Sessions, transact
from shared.maintenance.outbox import EventKind, OutboxEvent
from shared.messaging.events import Events, JobChanged
from shared.messaging.tickets import Tickets
from shared.queue import dependencies

_MOST_OVERDUE: Final = 1000  # that one run settles


def settle(event: OutboxEvent, *, sessions: Sessions, tickets: Tickets, events: Events) -> None:
    """Queue or cancel the jobs that waited for the event's, and notify workers and pages. Raises Unavailable.

    Safe to do again: a job that is settled does not wait any more.
    """
    if event.kind not in {EventKind.JOB_ENDED, EventKind.JOB_DELETED}:
        return
    jobs = transact(sessions, partial(dependencies.waiting_for, whose=EVERYBODYS, job_id=event.job_id))
    _settle([*jobs, *transact(sessions, dependencies.freed)], sessions, tickets, events)


def settle_overdue(*, sessions: Sessions, tickets: Tickets, events: Events) -> int:
    """Settle the jobs that wait although no event will come; return how many. Raises Unavailable.

    The event was delivered by a process of a version that knows no dependencies, or none was written.
    """
    jobs = transact(sessions, partial(dependencies.overdue, most=_MOST_OVERDUE))
    _settle(jobs, sessions, tickets, events)
    return len(jobs)


def _settle(jobs: Iterable[int], sessions: Sessions, tickets: Tickets, events: Events) -> None:
    for job_id in jobs:
        settled = transact(sessions, partial(dependencies.settle, job_id=job_id))
        for pool, images in settled.queued.items():
            tickets.publish(pool, images)
        if settled.state is not None:
            events.publish(JobChanged(job_id, settled.state))
