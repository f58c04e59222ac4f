"""Applies the deadlines and release times of the queue; `shared.queue.deadlines` holds the rules and never commits."""

from __future__ import annotations

from typing import Final

from shared.db.sessions import Sessions, transact
from shared.messaging.events import Events, JobChanged
from shared.messaging.tickets import Tickets
from shared.queue.deadlines import move_due

_MOST_ROUNDS: Final = 20  # in a row: the caller has other work as well


def run_due(sessions: Sessions, tickets: Tickets, events: Events) -> None:
    """Move images until nothing is due, and notify workers and pages of each. Raises Unavailable."""
    for _ in range(_MOST_ROUNDS):
        due = transact(sessions, move_due)
        for pool, images in due.queued.items():
            tickets.publish(pool, images)
        for job_id, state in due.jobs.items():
            events.publish(JobChanged(job_id, state))
        if due.is_all:
            return
