"""`python -m bench.queue_celery REDIS_URL SLOTS`: a bare Celery worker with the farm's settings and an empty task."""

from __future__ import annotations

import sys

from celery.signals import worker_ready
from redis import Redis

from shared.db.farm import FarmId
from shared.messaging.tickets import TASK, WORKER_OPTIONS, celery_app, pool_queue
from worker.dispatch.consumer import Consumer

READY = "bench:ready"
QUEUE = pool_queue("bare")
BENCH = FarmId(lambda: "bench")


def main(url: str, slots: int) -> None:
    """Take tasks until told to stop."""
    app = celery_app(url, BENCH)

    @app.task(name=TASK, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def empty() -> None: ...

    worker_ready.connect(lambda **_: Redis.from_url(url).incr(READY), weak=False)
    Consumer(app=app, concurrency=slots, queues=[QUEUE], quiet=True, **WORKER_OPTIONS).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
