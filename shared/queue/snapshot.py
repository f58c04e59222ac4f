"""The snapshot: what the policy decides on. Whoever finds the shared one stale takes the next, and shares it."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from redis import Redis, RedisError
from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from shared.database import Sessions, transact
from shared.queue.policy import Farm, Lane, Owner, Worker
from shared.states import WorkerState

MAX_AGE_SECONDS = 0.5
KEY = "farm:snapshot"
TURN = "farm:snapshot:turn"


@dataclass(frozen=True)
class Snapshot:
    """The lanes with queued images, and the farm that they are ranked for."""

    lanes: tuple[Lane, ...]
    farm: Farm

    @property
    def taken_at(self) -> float:
        """When it was taken, seconds on the database's clock."""
        return self.farm.now

    def to_json(self) -> bytes:
        return _JSON.dump_json(self)

    @classmethod
    def from_json(cls, stored: bytes) -> Snapshot:
        return _JSON.validate_json(stored)


_JSON = TypeAdapter(Snapshot)

# A loose index scan: from the head of each lane to the head of the next, one probe a lane, however long the lanes are.
# Index: ix_images_lane.
_LANES = text("""
    WITH RECURSIVE lane AS (
        (
            SELECT owner, checkpoint, pool, memory_class, urgent, priority, id, queued_at
            FROM images
            WHERE state = 'queued'
            ORDER BY owner, checkpoint, pool, memory_class, urgent DESC, priority DESC, id
            LIMIT 1
        )
        UNION ALL
        SELECT next.*
        FROM lane
        CROSS JOIN LATERAL (
            SELECT owner, checkpoint, pool, memory_class, urgent, priority, id, queued_at
            FROM images
            WHERE state = 'queued'
              AND (images.owner, images.checkpoint, images.pool, images.memory_class)
                  > (lane.owner, lane.checkpoint, lane.pool, lane.memory_class)
            ORDER BY owner, checkpoint, pool, memory_class, urgent DESC, priority DESC, id
            LIMIT 1
        ) AS next
    )
    SELECT owner, checkpoint, pool, memory_class, urgent, priority,
           id AS head,
           extract(epoch FROM queued_at)::float8 AS queued_at
    FROM lane
""")

# Of the owners that wait. Indexes: ix_images_running (few rows, however long the queue), ix_images_served.
_OWNERS = text("""
    SELECT waiting.owner,
           coalesce(work.running, 0)::bigint AS running,
           extract(epoch FROM served.started_at)::float8 AS served_at
    FROM unnest(CAST(:owners AS text[])) AS waiting (owner)
    LEFT JOIN (
        SELECT owner, sum(cost) AS running
        FROM images
        WHERE worker_id IS NOT NULL
        GROUP BY owner
    ) AS work ON work.owner = waiting.owner
    LEFT JOIN LATERAL (
        SELECT started_at
        FROM images
        WHERE images.owner = waiting.owner
          AND started_at IS NOT NULL
        ORDER BY started_at DESC
        LIMIT 1
    ) AS served ON true
""")

_WORKERS = text("""
    SELECT id, pool, state, resident, load_seconds,
           slots - (SELECT count(*) FROM images WHERE worker_id = workers.id) AS free_slots
    FROM workers
    WHERE lease_until > clock_timestamp()
    ORDER BY id
""")

_NOW = text("SELECT extract(epoch FROM clock_timestamp())::float8")


def take(session: Session) -> Snapshot:
    """Return the lanes and the farm as the database has them now."""
    lanes = tuple(Lane(**row) for row in session.execute(_LANES).mappings())
    owners = {lane.owner for lane in lanes}
    rows = session.execute(_OWNERS, {"owners": sorted(owners)}).all() if owners else []
    farm = Farm(
        now=session.scalar(_NOW) or 0.0,
        owners={owner: Owner(running, served_at) for owner, running, served_at in rows},
        workers=tuple(_worker(row) for row in session.execute(_WORKERS).mappings()),
    )
    return Snapshot(lanes, farm)


def _worker(row: RowMapping) -> Worker:
    said: dict[str, Any] = dict(row)
    return Worker(**said | {"state": WorkerState(said["state"]), "resident": frozenset(said["resident"])})


def current(sessions: Sessions, redis: Redis | None, max_age: float = MAX_AGE_SECONDS) -> Snapshot:
    """Return a snapshot at most about twice `max_age` seconds old; 0: one taken now.

    One process at a time has the turn to take it, for all: its cost does not grow with the workers. Without Redis each
    caller takes its own.
    """
    shared = _shared(redis, max_age) if redis is not None and max_age > 0 else None
    if shared is not None:
        return shared
    taken = transact(sessions, take)
    if redis is not None:
        _share(redis, taken, max_age or MAX_AGE_SECONDS)
    return taken


def _shared(redis: Redis, max_age: float) -> Snapshot | None:
    """Return the shared snapshot; None when there is none that can be used, or it is our turn to take the next."""
    try:
        if redis.set(TURN, b"1", nx=True, px=_milliseconds(max_age)):
            return None
        stored = redis.get(KEY)
        return Snapshot.from_json(stored) if isinstance(stored, bytes) else None
    except (RedisError, ValidationError):  # away, or written by another version
        return None


def _share(redis: Redis, taken: Snapshot, max_age: float) -> None:
    try:
        redis.set(KEY, taken.to_json(), px=_milliseconds(2 * max_age))
    except RedisError:
        return


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
