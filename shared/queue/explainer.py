"""Reads what `shared.queue.explain` needs: the image, the snapshot, what the farm did lately.

A given estimate is remembered until its image has run. By how much it was off is stored in Redis, so that all processes
say the same; without Redis each knows its own.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Final, NamedTuple

from pydantic import ValidationError
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from shared.db.farm import farm_id
from shared.db.sessions import Sessions, transact
from shared.db.states import ImageState, WorkerState
from shared.db.tables import Drain, Worker
from shared.errors import CARD_UNUSABLE, STORAGE_AWAY, Unavailable
from shared.jobs import stored
from shared.messaging.redis_health import RedisHealth
from shared.models import memory
from shared.models.catalogue import identity_of
from shared.models.memory import Footprint, Needs
from shared.models.model_set import NO_FILE, ModelSet
from shared.queue import estimates, missing_files
from shared.queue.estimates import Rendered, Struck
from shared.queue.explain import RecentWork, Waiter, Waiting, explain
from shared.queue.history import Event
from shared.queue.policy import Lane
from shared.queue.queries import BEFORE, FARTHEST
from shared.queue.snapshot import Snapshots

ERRORS: Final = "estimates:errors"  # the latest first
_BY_ITSELF: Final = (STORAGE_AWAY, CARD_UNUSABLE)  # how phases of workers begin that take nothing, and nobody drained
_RECENT_SECONDS: Final = 5.0  # for which what was rendered lately is not read again
_LINES: Final = 1000  # of the history, the latest
_ERRORS: Final = 50
_REMEMBERED: Final = 5000  # estimates whose images have not run yet

# The first queued image of a job, else its first held one; what stands before it; what its job was submitted with.
# Indexes: images (job_id, index), ix_images_lane_companions.
_WAITER = text(f"""
    SELECT head.*, ahead.images AS ahead, ahead.cost AS ahead_cost, ahead.struck AS struck_ahead,
           ahead.struck_cost AS struck_ahead_cost, job.params, coalesce(head.own_models, job.models) AS models
    FROM (
        SELECT id, index, state, reason, owner, checkpoint, pool, memory_class, companions, urgent, priority, cost,
               strikes, changes, models AS own_models,
               extract(epoch FROM queued_at)::float8 AS queued_at
        FROM images
        WHERE job_id = :job_id
          AND state IN ('queued', 'held')
        ORDER BY state = 'held', index
        LIMIT 1
    ) AS head
    CROSS JOIN LATERAL (
        SELECT count(*) AS images,
               coalesce(sum(cost), 0)::bigint AS cost,
               count(*) FILTER (WHERE strikes > 0) AS struck,
               coalesce(sum(cost) FILTER (WHERE strikes > 0), 0)::bigint AS struck_cost
        FROM (
            SELECT cost, strikes
            {BEFORE}
        ) AS counted
    ) AS ahead
    CROSS JOIN LATERAL (
        SELECT params, models
        FROM jobs
        WHERE jobs.id = :job_id
    ) AS job
""")  # noqa: S608 - a constant

# Index: ix_images_struck.
_STRUCK_RUNNING = text("""
    SELECT worker, extract(epoch FROM clock_timestamp() - started_at)::float8 AS seconds
    FROM images
    WHERE worker_id IS NOT NULL
      AND strikes > 0
""")

_UNREAD = text("""
    SELECT name, unread ->> CAST(:job_id AS text) AS what
    FROM workers
    WHERE unread ->> CAST(:job_id AS text) IS NOT NULL
""")

# The end of the history, so that the cost does not grow with it.
_RENDERED = text("""
    SELECT images.id, images.worker, images.cost, images.attempt,
           extract(epoch FROM images.started_at)::float8 AS started_at,
           extract(epoch FROM images.ended_at)::float8 AS ended_at
    FROM (SELECT event, image_id FROM history ORDER BY id DESC LIMIT :lines) AS latest
    JOIN images ON images.id = latest.image_id
    WHERE latest.event = :finished
      AND images.started_at IS NOT NULL
      AND images.ended_at IS NOT NULL
      AND images.worker IS NOT NULL
""")


class _Given(NamedTuple):
    """An estimate, and when it was given, on the database's clock."""

    at: float
    seconds: float


class Explainer:
    """Explains why jobs wait. Threads may share it."""

    def __init__(self, sessions: Sessions, redis_url: str) -> None:
        self._sessions = sessions
        self._farm_id = farm_id(sessions)
        # Its own snapshots, seldom: pages do not take them in place of the workers.
        self._snapshots = Snapshots(sessions, redis=None)
        self._redis = Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 1))
        self._health = RedisHealth(self._redis, self._farm_id)
        self._lock = Lock()
        self._recent_work = RecentWork()
        self._recent_until = 0.0  # monotonic
        self._given: OrderedDict[int, _Given] = OrderedDict()  # image id -> the first estimate for it
        self._errors: deque[float] = deque(maxlen=_ERRORS)

    def explain(self, job_id: int) -> Waiting | None:
        """Return why the first image of a job that waits does so; None: no image waits. Raises Unavailable."""
        waiter = transact(self._sessions, lambda session: _waiter_of(session, job_id))
        if waiter is None:
            return None
        snapshot = self._snapshots.current()
        waiting = explain(waiter, snapshot, self._read_recent_work(), self._health.trouble())
        if waiting.estimate_seconds:
            self._remember(waiter.lane.head, _Given(snapshot.taken_at, waiting.estimate_seconds))
        return waiting

    def seconds(self, work: int, pool: str) -> float | None:
        """Return in how many seconds the workers of a pool would do this work, if nothing else waited.

        None if none of them has rendered anything lately. Raises Unavailable.
        """
        workers = self._snapshots.current().farm.workers
        ready = [one for one in workers if pool in one.pools and one.state == WorkerState.READY]
        return estimates.seconds_of_all(work, ready, self._read_recent_work().rates)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def _remember(self, image_id: int, given: _Given) -> None:
        with self._lock:
            self._given.setdefault(image_id, given)
            if len(self._given) > _REMEMBERED:
                self._given.popitem(last=False)

    def _read_recent_work(self) -> RecentWork:
        """Return what the farm did lately; one thread at a time reads it, the others take what is known."""
        with self._lock:
            if time.monotonic() < self._recent_until:
                return self._recent_work
            self._recent_until = time.monotonic() + _RECENT_SECONDS
        rows, drains = transact(self._sessions, _recent)
        rendered = [Rendered(row.worker, row.cost, row.started_at, row.ended_at) for row in rows]
        errors = self._errors_of(rows)
        with self._lock:
            self._recent_work = RecentWork(
                rates={**self._recent_work.rates, **estimates.rates(rendered)},
                paces={**self._recent_work.paces, **estimates.paces(rendered)},
                error=estimates.typical(errors),
                drains=drains,
            )
            return self._recent_work

    def _errors_of(self, rows: Sequence[Row[tuple[object, ...]]]) -> list[float]:
        """Return by how much the latest estimates were off, those for the images of `rows` among them."""
        with self._lock:
            came = [(self._given.pop(row.id), row) for row in rows if row.id in self._given]
        found = [estimates.error(given.seconds, row.started_at - given.at) for given, row in came if row.attempt == 1]
        fresh = [error for error in found if error is not None]
        self._errors.extendleft(fresh)
        with suppress(RedisError, Unavailable, ValueError):
            shared, key = self._redis.pipeline(), self._farm_id.key(ERRORS)
            if fresh:
                shared.lpush(key, *fresh)
            shared.ltrim(key, 0, _ERRORS - 1)
            shared.lrange(key, 0, -1)
            return [float(error) for error in shared.execute()[-1]]
        return list(self._errors)


def _waiter_of(session: Session, job_id: int) -> Waiter | None:
    """Return the image of a job that waits, or None."""
    row = session.execute(_WAITER, {"job_id": job_id, "farthest": FARTHEST}).one_or_none()
    if row is None:
        return None
    footprint = Footprint(row.checkpoint, row.companions, row.memory_class)
    unread = {name: what for name, what in session.execute(_UNREAD, {"job_id": job_id})}  # noqa: C416 - as in `queries`
    waiter = _waiter(row, memory.needs(session, [footprint]).get(footprint, Needs()))
    params = stored.image(row.params, waiter.index, row.changes).params
    missing = missing_files.missing(session, _models(session, row), params)
    return replace(waiter, missing=missing, unread=unread, struck=_struck(session, row) if row.strikes else None)


def _models(session: Session, row: Row[tuple[object, ...]]) -> ModelSet:
    """Return the model files of an image; of one that another version admitted, its checkpoint at least."""
    with suppress(ValidationError):
        if row.models is not None:
            return ModelSet.from_stored(row.models)
    return ModelSet(checkpoint=None if row.checkpoint == NO_FILE else identity_of(session, row.checkpoint))


def _struck(session: Session, row: Row[tuple[object, ...]]) -> Struck:
    """Return the other images that a worker died of, which an image of their kind waits for."""
    running = {worker: seconds for worker, seconds in session.execute(_STRUCK_RUNNING)}  # noqa: C416 - as in `queries`
    return Struck(row.struck_ahead, row.struck_ahead_cost, running)


def _recent(session: Session) -> tuple[Sequence[Row[tuple[object, ...]]], dict[str, str]]:
    rows = session.execute(_RENDERED, {"lines": _LINES, "finished": Event.FINISHED}).all()
    takes_nothing = select(Worker.name, Worker.phase).where(Worker.state == WorkerState.DRAINED)
    waiting = {name: phase for name, phase in session.execute(takes_nothing) if phase.startswith(_BY_ITSELF)}
    return rows, waiting | {drain.worker: drain.reason for drain in session.scalars(select(Drain))}


def _waiter(row: Row[tuple[object, ...]], needs: Needs) -> Waiter:
    image = row._mapping  # noqa: SLF001 - how rows are read by name
    names = ("owner", "checkpoint", "pool", "memory_class", "companions", "urgent", "priority", "queued_at", "cost")
    lane = {name: image[name] for name in names}
    return Waiter(
        index=image["index"],
        lane=Lane(head=image["id"], needs=needs.half, needs_single=needs.single, **lane),
        held=(image["reason"] or "held") if image["state"] == ImageState.HELD else None,
        ahead=image["ahead"],
        ahead_cost=image["ahead_cost"],
        is_far=image["ahead"] >= FARTHEST,
    )
