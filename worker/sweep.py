"""Keeps the storage free of pictures whose jobs are gone and of uploads nobody needs: one worker, once an hour."""

from __future__ import annotations

from typing import Final

import structlog
from redis import RedisError

from shared import uploads
from shared.errors import StorageError, Unavailable
from shared.sweep import sweep
from worker.worker import Worker

log = structlog.get_logger(__name__)

SECONDS: Final = 3600.0
_KEY: Final = "farm:swept"  # a hint: two sweeps at a time do no harm


class Sweep:
    """One turn every hour; whoever comes first does it for all."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def turn(self) -> None:
        """Sweep, unless somebody has within the hour."""
        worker = self._worker
        try:
            if not worker.redis.set(_KEY, worker.name, nx=True, ex=int(SECONDS) - 60):
                return
            jobs, pictures = self._sweep()
        except (RedisError, StorageError, Unavailable) as error:
            log.info("sweep put off", worker=worker.id, reason=str(error))
            return
        if jobs:
            log.info("pictures of deleted jobs removed", worker=worker.id, jobs=jobs)
        if pictures:
            log.info("uploads that no job names removed", worker=worker.id, pictures=pictures)

    def _sweep(self) -> tuple[list[int], int]:
        """Sweep; where that fails, the hour is free again for whoever comes next."""
        sessions, storage = self._worker.sessions, self._worker.storage
        try:
            return sweep(sessions, storage), uploads.sweep(sessions, storage)
        except (StorageError, Unavailable):
            self._worker.redis.delete(_KEY)
            raise
