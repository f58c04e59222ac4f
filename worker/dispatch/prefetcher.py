"""While the card is busy, the prefetcher has the host read the checkpoint that the queue needs next."""

from __future__ import annotations

import structlog
from redis import RedisError

from shared.errors import Unavailable, explain
from worker.context import Worker
from worker.dispatch.claimer import Claimer

log = structlog.get_logger(__name__)


class Prefetcher:
    """Asks the policy which checkpoint this worker would load next, and has the card read it ahead."""

    def __init__(self, worker: Worker, claimer: Claimer) -> None:
        self._worker = worker
        self._claimer = claimer

    def run_once(self) -> None:
        """Tell the card which checkpoint comes next, if this worker takes images and its host keeps checkpoints."""
        if not self._worker.takes_images or not self._worker.card.keeps_checkpoints:
            return
        try:
            checkpoint = self._claimer.next_to_load()
        except (RedisError, Unavailable) as error:
            log.debug("prefetch put off", worker=self._worker.id, reason=explain(error))
            return
        if checkpoint:
            self._worker.card.prefetch(checkpoint)
