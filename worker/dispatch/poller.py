"""The poller issues new tickets if slots are free and images can be claimed but no ticket waits: some were lost."""

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

_TICKETS_SECONDS: Final = (
    0.05  # after tickets were seen: small images end so fast that it does not pay to poll each time
)


class Poller:
    """Polls every `look_seconds`, and whenever a slot is free again.

    So lost tickets cost no more than that, and a backlog without tickets keeps every slot busy. Without Redis no image
    starts.
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
            if self._waiting_tickets() > 0:
                self._tickets_until = now + _TICKETS_SECONDS
            elif self._claimer.has_some():
                worker.tickets.pass_on(worker.id, worker.free_slots)
                log.info("tickets issued to itself", worker=worker.id, tickets=worker.free_slots)
        except (RedisError, Unavailable) as error:
            log.debug("poll put off", worker=worker.id, reason=explain(error))
        return None

    def _waiting_tickets(self) -> int:
        pipeline = self._worker.redis.pipeline(transaction=False)
        for queue in queues(self._worker.id, self._worker.pools):
            pipeline.llen(self._worker.farm_id.key(queue))
        return sum(map(int, pipeline.execute()))
