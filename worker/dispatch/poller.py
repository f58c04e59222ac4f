"""Free slots and claimable images but no tickets mean that tickets were lost: the poller issues new ones."""

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

_TICKETS_SECONDS: Final = 0.05  # after tickets were seen: small images end faster than it pays to count each time


class Poller:
    """Polls every `look_seconds` and whenever a slot is free again, so that a lost ticket costs a second and a backlog
    without tickets keeps every slot busy. Without Redis nothing new starts.
    """

    def __init__(self, worker: Worker, claimer: Claimer) -> None:
        self._worker = worker
        self._claimer = claimer
        self._tickets_until = 0.0  # monotonic; there were tickets a moment ago

    def run_once(self) -> float | None:
        """Issue a ticket for each free slot if an image could be claimed and there are no tickets; return in how many
        seconds to poll again, if that is not the usual time.
        """
        now, worker = time.monotonic(), self._worker
        if now < self._tickets_until:
            return self._tickets_until - now
        if not worker.takes_images or worker.free_slots <= 0:
            return None
        try:
            counts = worker.redis.pipeline(transaction=False)
            for queue in queues(worker.id, worker.pools):
                counts.llen(worker.farm_id.key(queue))
            if sum(map(int, counts.execute())) > 0:
                self._tickets_until = now + _TICKETS_SECONDS
            elif self._claimer.has_some():
                worker.tickets.pass_on(worker.id, worker.free_slots)
                log.info("tickets issued to itself", worker=worker.id, tickets=worker.free_slots)
        except (RedisError, Unavailable) as error:
            log.debug("poll put off", worker=worker.id, reason=explain(error))
        return None
