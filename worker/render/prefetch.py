"""The prefetch: while the card is busy, it hears which checkpoint the queue will have it load next."""

from __future__ import annotations

import structlog
from redis import RedisError

from shared.errors import Unavailable, explain
from worker.context import Worker
from worker.dispatch.claimer import Claimer

log = structlog.get_logger(__name__)


class Prefetch:
    """One turn every `look_seconds`: the card gets the checkpoint at hand that the policy would give it next."""

    def __init__(self, worker: Worker, claimer: Claimer) -> None:
        self._worker = worker
        self._claimer = claimer

    def run_once(self) -> None:
        """Tell the card what comes next; a worker that takes nothing needs nothing."""
        if not self._worker.takes_images or not self._worker.card.keeps_checkpoints:
            return
        try:
            checkpoint = self._claimer.next_to_load()
        except (RedisError, Unavailable) as error:
            log.debug("prefetch put off", worker=self._worker.id, reason=explain(error))
            return
        if checkpoint:
            self._worker.card.prefetch(checkpoint)
