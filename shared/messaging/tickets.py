"""Tickets: Celery messages that say "an image is waiting", and the one home of Celery's configuration.

A ticket names no image. A lost, doubled or late ticket costs only time: each worker polls the queue every second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from celery import Celery
from redis import Redis

from shared import redis_url
from shared.db.farm import FarmId
from shared.messaging.sender import Sender
from shared.params.pools import DEFAULT_POOL

TASK: Final = "render"
CHORE: Final = "chore"
CHORES_QUEUE: Final = "chores"
"""The queue of messages that name a chore to be done now; if one is lost, the chore is done when it is due."""

WORKER_OPTIONS: Final = {
    "pool_cls": "threads",  # CUDA does not survive a fork, and remote control answers while a slot renders
    "without_gossip": True,  # its traffic grows with the square of the number of workers
    "without_mingle": True,
    "without_heartbeat": True,  # the farm's own heartbeat is in PostgreSQL
}
"""The options of `app.Worker(…)` for every worker, beside its queues and its slots."""

_MOST_AT_ONCE: Final = 1000  # tickets of one pool in one batch; more would find nothing to do
_MOST_WAITING: Final = 10_000  # tickets in one queue: the workers poll for the rest


def pool_queue(pool: str) -> str:
    """Return the name of the queue whose tickets any worker of `pool` may take."""
    return f"pool.{pool}"


def worker_queue(worker_id: int) -> str:
    """Return the direct queue of one worker."""
    return f"worker.{worker_id}"


def queues(worker_id: int, pools: Iterable[str]) -> list[str]:
    """Return the queues of a worker: those of its pools, then its own."""
    return [*map(pool_queue, pools), worker_queue(worker_id)]


def celery_app(url: str, farm_id: FarmId) -> Celery:
    """Return the Celery application that sends and takes a farm's tickets at `url` (in the form of redis-py).

    Raises Unavailable while the farm's id is not known.
    """
    app, place = Celery("stepfarm", set_as_current=False), redis_url.read(url)
    app.conf.update(
        broker_url=place.broker,
        broker_use_ssl=place.broker_tls,
        broker_connection_timeout=4,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for Redis without end, and its images go on meanwhile
        broker_transport_options={
            "global_keyprefix": farm_id.prefix,  # of queues, control and events: another farm may use the same Redis
            "visibility_timeout": 12 * 3600,  # longer than any render, so that no ticket is delivered twice meanwhile
            "socket_connect_timeout": 4,
            "socket_timeout": 15,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
        task_default_queue=pool_queue(DEFAULT_POOL),
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,  # with a prefetch of one: a full worker takes no ticket
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a running task is an image, and goes on
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


@dataclass(frozen=True)
class Ticket:
    """A ticket, and whether another worker has passed it on."""

    was_passed: bool


def take(redis: Redis, farm_id: FarmId, worker_id: int, pools: Iterable[str], count: int) -> list[Ticket]:
    """Take up to `count` tickets for a worker from its queues, its own last: in a backlog the first queue has enough.

    They are neither read nor acknowledged, because a ticket holds nothing and a lost one costs a second.
    """
    taken = list[Ticket]()
    for queue in queues(worker_id, pools):
        if short := count - len(taken):
            found = redis.rpop(farm_id.key(queue), short) or []
            taken += [Ticket(was_passed=queue == worker_queue(worker_id))] * len(found)
    return taken


def forget(redis: Redis, farm_id: FarmId, worker_id: int) -> None:
    """Remove the direct queue of a worker that leaves, with its bindings in kombu."""
    queue = worker_queue(worker_id)
    redis.delete(*map(farm_id.key, (queue, f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}")))


def queues_of_workers(redis: Redis, farm_id: FarmId) -> set[int]:
    """Return the ids of the workers that have a direct queue in Redis."""
    patterns = map(farm_id.key, ("worker.*", "_kombu.binding*.worker.*"))
    keys = {key.decode() for pattern in patterns for key in redis.scan_iter(pattern)}
    ids = {key.rpartition("worker.")[2] for key in keys}
    return {int(worker_id) for worker_id in ids if worker_id.isdecimal()}


class Tickets:
    """Sends tickets in the background: no call waits or fails while Redis or the database is away."""

    def __init__(self, url: str, farm_id: FarmId) -> None:
        self._url = url
        self._farm_id = farm_id
        self._sender: Sender[int] = Sender("tickets", self._deliver, merge=lambda old, new: old + new)

    @property
    def dropped(self) -> int:
        """How many batches of tickets were lost since the start, because Redis was away."""
        return self._sender.dropped

    def publish(self, pool: str, count: int) -> None:
        """Tell the workers of `pool` that `count` images wait. Call it after the commit."""
        if count > 0:
            self._sender.put(pool_queue(pool), count)

    def pass_on(self, worker_id: int, count: int = 1) -> None:
        """Tell one worker that `count` images wait that it should take."""
        self._sender.put(worker_queue(worker_id), count)

    def flush(self, seconds: float = 2.0) -> bool:
        """Wait until all tickets have left or were lost; False if that takes longer."""
        return self._sender.flush(seconds)

    def close(self) -> None:
        """Send the waiting tickets, and end the thread."""
        self._sender.close()

    @cached_property
    def _app(self) -> Celery:
        return celery_app(self._url, self._farm_id)

    def _deliver(self, batch: Mapping[object, int]) -> None:
        with self._app.producer_or_acquire() as producer:
            for queue, count in batch.items():
                room = _MOST_WAITING - int(producer.channel.client.llen(queue))
                with producer.batch():  # one round trip
                    for _ in range(min(count, _MOST_AT_ONCE, room)):
                        self._app.send_task(TASK, queue=str(queue), producer=producer, retry=False)
