"""The look: free slots and claimable images, but no tickets, means that tickets were lost: it issues new ones."""

from __future__ import annotations

import time
from typing import Final

import structlog
from redis import RedisError

from shared.errors import Unavailable, explain
from shared.messaging.tickets import queues
from worker.context import Worker
from worker.dispatch.claimer import Claimer

log = structlog.get_logger(__name__)

_TICKETS_SECONDS: Final = 0.05  # after tickets were seen: small images end faster than it pays to look each time


class Poller:
    """One turn every `look_seconds` and whenever a slot is free again: tickets may be lost, a second is.

    So a backlog without tickets keeps every slot busy. Without Redis nothing new starts.
    """

    def __init__(self, worker: Worker, claimer: Claimer) -> None:
        self._worker = worker
        self._claimer = claimer
        self._tickets_until = 0.0  # monotonic; there were tickets a moment ago

    def run_once(self) -> float | None:
        """Issue a ticket for each free slot if any image could be claimed and nothing else will bring one."""
        now = time.monotonic()
        if now < self._tickets_until:
            return self._tickets_until - now
        worker = self._worker
        if not worker.takes_images or worker.free_slots <= 0:
            return None
        try:
            if self._tickets() > 0:
                self._tickets_until = now + _TICKETS_SECONDS
            elif self._claimer.has_some():
                worker.tickets.pass_on(worker.id, worker.free_slots)
                log.info("tickets issued to itself", worker=worker.id, tickets=worker.free_slots)
        except (RedisError, Unavailable) as error:
            log.debug("look put off", worker=worker.id, reason=explain(error))
        return None

    def _tickets(self) -> int:
        asked = self._worker.redis.pipeline(transaction=False)
        for queue in queues(self._worker.id, self._worker.pools):
            asked.llen(self._worker.farm_id.key(queue))
        return sum(map(int, asked.execute()))
