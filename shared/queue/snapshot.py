"""The snapshot that the policy decides on. A process that finds the shared one stale takes the next, and shares it.

A shared snapshot is half a second old, in which a thousand workers make hundreds of claims. If no worker knew those of
the others, all would serve the owner that had the least; so each claim is written down beside the snapshot.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from math import inf
from threading import Lock
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from redis import Redis, RedisError
from sqlalchemy import RowMapping, text
from sqlalchemy.orm import Session

from shared.db.farm import farm_id
from shared.db.sessions import Sessions, repeatable, transact
from shared.db.states import WorkerState
from shared.errors import Unavailable
from shared.models import memory
from shared.queue.policy import Farm, Lane, Lanes, Owner, Worker
from shared.queue.queries import residents

MAX_AGE_SECONDS: Final = 0.5
KEY: Final = "snapshot"
STAMP: Final = "snapshot:stamp"  # when it was taken: a process that has parsed it does not fetch it again
CLAIMS: Final = "snapshot:claims"  # by the transaction that made them, without those that every later snapshot sees
TURN: Final = "snapshot:turn"
HEARD_SECONDS: Final = 0.02  # for which a process uses what Redis said: a busy one claims far more often
ALONE_SECONDS: Final = 2.0  # for which a process without Redis uses one snapshot
COUNTED: Final = 100  # images of a lane: more change nothing for the policy


@dataclass(frozen=True)
class Visibility:
    """Which transactions a snapshot sees, by PostgreSQL's numbers: those before `following` that were not running."""

    oldest_running: int
    following: int
    running: frozenset[int] = frozenset()

    def sees(self, transaction: int) -> bool:
        return transaction < self.following and transaction not in self.running

    @classmethod
    def parse(cls, text: str) -> Visibility:
        """Read PostgreSQL's own form, `10:20:10,14,15`."""
        oldest, following, running = text.split(":")
        return cls(int(oldest), int(following), frozenset(int(number) for number in running.split(",") if number))


class Claimed(NamedTuple):
    """What one transaction claimed: the cost of each owner's images, and how many there are. Transaction 0 is one that
    every later snapshot sees.
    """

    transaction: int
    costs: Mapping[str, int]
    images: Mapping[str, int]

    @classmethod
    def from_json(cls, stored: bytes | str) -> Claimed:
        transaction, costs, images, *_ = json.loads(stored)
        counts = images if isinstance(images, dict) else {}  # the version before counts none, or leaves out what is one
        return cls(transaction, costs, {owner: counts.get(owner, 1) for owner in costs})


@dataclass(frozen=True)
class Snapshot:
    """The lanes with queued images, and the farm that they are ranked for."""

    lanes: tuple[Lane, ...]
    farm: Farm
    seen: Visibility | None = None

    @property
    def taken_at(self) -> float:
        """When it was taken, seconds on the database's clock."""
        return self.farm.now

    @cached_property
    def ordered(self) -> Lanes:
        """The lanes, made ready for the policy."""
        return Lanes(self.lanes)

    def sees(self, transaction: int) -> bool:
        """Return whether what this transaction did is in the snapshot."""
        return self.seen is not None and self.seen.sees(transaction)

    def after(self, costs: Mapping[str, int], images: Mapping[str, int]) -> Snapshot:
        """Return the snapshot as it is after these owners were given so many images of these costs."""
        if not costs:
            return self
        later = Snapshot(self.lanes, self.farm.after(costs, images), self.seen)
        later.__dict__["ordered"] = self.ordered
        return later

    def after_claims(self, claims: Iterable[Claimed]) -> Snapshot:
        """Return the snapshot as it is after those of these claims that it has not seen itself."""
        costs, images = Counter[str](), Counter[str]()
        for claimed in claims:
            if not claimed.transaction or not self.sees(claimed.transaction):
                costs.update(claimed.costs)
                images.update(claimed.images)
        return self.after(costs, images)

    def to_json(self) -> bytes:
        return _JSON.dump_json(self)

    @classmethod
    def from_json(cls, stored: bytes | str) -> Snapshot:
        return _JSON.validate_json(stored)


_JSON = TypeAdapter(Snapshot)

# A bitmap would read a lane whole before it gave the first of its images.
_BY_INDEX = text("SET LOCAL enable_bitmapscan = off")

# A loose index scan: from the head of each lane to the head of the next, one probe a lane, however long the lanes are.
# Then a bounded count of each. Index: ix_images_lane_companions.
_LANES = text("""
    WITH RECURSIVE lane AS (
        (
            SELECT owner, checkpoint, pool, memory_class, companions, urgent, priority, id, queued_at, cost
            FROM images
            WHERE state = 'queued'
            ORDER BY owner, checkpoint, pool, memory_class, companions, urgent DESC, priority DESC, id
            LIMIT 1
        )
        UNION ALL
        SELECT next.*
        FROM lane
        CROSS JOIN LATERAL (
            SELECT owner, checkpoint, pool, memory_class, companions, urgent, priority, id, queued_at, cost
            FROM images
            WHERE state = 'queued'
              AND (images.owner, images.checkpoint, images.pool, images.memory_class, images.companions)
                  > (lane.owner, lane.checkpoint, lane.pool, lane.memory_class, lane.companions)
            ORDER BY owner, checkpoint, pool, memory_class, companions, urgent DESC, priority DESC, id
            LIMIT 1
        ) AS next
    )
    SELECT owner, checkpoint, pool, memory_class, companions, urgent, priority,
           id AS head,
           extract(epoch FROM queued_at)::float8 AS queued_at,
           cost,
           (
               SELECT count(*)
               FROM (
                   SELECT FROM images
                   WHERE state = 'queued'
                     AND images.owner = lane.owner
                     AND images.checkpoint = lane.checkpoint
                     AND images.pool = lane.pool
                     AND images.memory_class = lane.memory_class
                     AND images.companions = lane.companions
                     AND images.urgent = lane.urgent
                   ORDER BY urgent DESC, priority DESC, id
                   LIMIT :counted
               ) AS first_ones
           ) AS queued
    FROM lane
""")

# For the owners that wait; of these those with limits have a row of their own. Indexes: ix_images_running (few rows,
# however long the queue), ix_images_served.
_OWNERS = text("""
    SELECT waiting.owner,
           coalesce(work.running, 0)::bigint AS running,
           extract(epoch FROM served.started_at)::float8 AS served_at,
           coalesce(work.images, 0) AS images,
           CASE WHEN jsonb_exists(given, 'running') THEN (given ->> 'running')::bigint ELSE role_running END AS most
    FROM unnest(CAST(:owners AS text[])) AS waiting (owner)
    LEFT JOIN (
        SELECT owner, sum(cost) AS running, count(*) AS images
        FROM images
        WHERE worker_id IS NOT NULL
        GROUP BY owner
    ) AS work ON work.owner = waiting.owner
    LEFT JOIN owner_limits ON owner_limits.owner = waiting.owner
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
    SELECT id, name, pool, state, resident, load_seconds, memory_bytes, precision,
           slots - (SELECT count(*) FROM images WHERE worker_id = workers.id) AS free_slots
    FROM workers
    WHERE lease_until > clock_timestamp()
    ORDER BY id
""")

_NOW = text("SELECT extract(epoch FROM clock_timestamp())::float8 AS now, pg_current_snapshot()::text AS seen")


def take(session: Session) -> Snapshot:
    """Return the lanes and the farm as the database has them now; of one moment in a `sessions.repeatable` session."""
    session.execute(_BY_INDEX)
    lanes = tuple(Lane(**row) for row in session.execute(_LANES, {"counted": COUNTED}).mappings())
    owners = {lane.owner for lane in lanes}
    rows = session.execute(_OWNERS, {"owners": sorted(owners)}).all() if owners else []
    moment = session.execute(_NOW).one()
    farm = Farm(
        now=moment.now,
        owners={owner: Owner(*numbers) for owner, *numbers in rows},
        workers=tuple(_worker(row) for row in session.execute(_WORKERS).mappings()),
    )
    return Snapshot(_with_needs(session, lanes, farm), farm, Visibility.parse(moment.seen))


def _with_needs(session: Session, lanes: tuple[Lane, ...], farm: Farm) -> tuple[Lane, ...]:
    """Return the lanes with the memory that they need, if any worker says how much it offers."""
    if all(worker.memory_bytes is None for worker in farm.workers):
        return lanes
    known = memory.needs(session, {lane.footprint for lane in lanes})
    unknown = memory.Needs()
    needs = [known.get(lane.footprint, unknown) for lane in lanes]
    return tuple(
        replace(lane, needs=need.half, needs_single=need.single) for lane, need in zip(lanes, needs, strict=True)
    )


def _worker(row: RowMapping) -> Worker:
    said: dict[str, Any] = dict(row)
    pools = tuple(said.pop("pool").split(","))
    known = {"pools": pools, "state": WorkerState(said["state"]), "resident": frozenset(residents(said["resident"]))}
    precision = "single" if said["precision"] == "single" else "half"  # older workers do not say
    return Worker(**said | known | {"precision": precision})


class Snapshots:
    """The snapshots of one process, shared with all others through Redis. Threads may share it."""

    def __init__(self, sessions: Sessions, redis: Redis | None) -> None:
        self._repeatable = repeatable(sessions)
        self._redis = redis
        self._farm_id = farm_id(sessions)
        self._lock = Lock()
        self._latest: Snapshot | None = None
        self._latest_at = self._heard_at = -inf  # monotonic: when it came here, and when Redis was asked last
        self._claimed: list[Claimed] = []  # after it, as far as is known here

    def current(self, max_age: float = MAX_AGE_SECONDS) -> Snapshot:
        """Return a snapshot at most about twice `max_age` seconds old; 0: one taken now.

        One process at a time has the turn to take it, for all: its cost does not grow with the workers. Without Redis
        each process takes its own, more seldom.
        """
        known = None
        if max_age > 0:
            try:
                known = self._known(self._heard_at, HEARD_SECONDS) or self._shared(max_age)
            except (RedisError, Unavailable, ValueError):  # away, or written by another version
                known = self._known(self._latest_at, ALONE_SECONDS)
        return known or self._take(max_age or MAX_AGE_SECONDS)

    def add_claim(self, costs: Mapping[str, int], images: Mapping[str, int], transaction: int = 0) -> None:
        """Tell all processes that decide on the same snapshot what `transaction` claimed: the cost of each owner's
        images, and how many there are.

        Each claim is counted once: by the snapshots that see its transaction, or beside those that do not, however late
        this comes. Without a transaction it is counted until the next snapshot.
        """
        claimed = Claimed(transaction, dict(costs), dict(images))
        with self._lock:
            self._claimed.append(claimed)
        if self._redis is not None:
            with suppress(RedisError, Unavailable):
                pipeline, claims = self._redis.pipeline(transaction=False), self._farm_id.key(CLAIMS)
                pipeline.zadd(claims, {json.dumps([*claimed, secrets.token_hex(4)]): transaction})
                pipeline.pexpire(claims, _milliseconds(ALONE_SECONDS))
                pipeline.execute()

    def _shared(self, max_age: float) -> Snapshot | None:
        """Return the shared snapshot; None when it is our turn to take the next, or nobody has shared one."""
        if self._redis is None:
            return self._known(self._latest_at, ALONE_SECONDS)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(self._farm_id.key(TURN), b"1", nx=True, px=_milliseconds(max_age))
        pipeline.get(self._farm_id.key(STAMP))
        pipeline.zrange(self._farm_id.key(CLAIMS), 0, -1)
        is_ours, stamp, others = pipeline.execute()
        if is_ours or not stamp:
            return None
        known = self._latest
        if known is None or _stamp(known) != stamp:
            known = Snapshot.from_json(self._redis.get(self._farm_id.key(KEY)) or b"")
        claims = [Claimed.from_json(one) for one in others]
        return self._keep(known, claims)

    def _known(self, since: float, seconds: float) -> Snapshot | None:
        """Return the latest snapshot with the claims known here, if less than `seconds` have passed `since`."""
        with self._lock:
            is_young = time.monotonic() - since < seconds
            return self._latest.after_claims(self._claimed) if self._latest and is_young else None

    def _take(self, lifetime: float) -> Snapshot:
        taken = transact(self._repeatable, take)
        as_it_stands = self._keep(taken, [])
        if self._redis is not None:
            with suppress(RedisError, Unavailable):
                pipeline = self._redis.pipeline()
                pipeline.set(self._farm_id.key(KEY), taken.to_json(), px=_milliseconds(2 * lifetime))
                pipeline.set(self._farm_id.key(STAMP), _stamp(taken), px=_milliseconds(2 * lifetime))
                if taken.seen:
                    pipeline.zremrangebyscore(self._farm_id.key(CLAIMS), "-inf", f"({taken.seen.oldest_running}")
                pipeline.execute()
        return as_it_stands

    def _keep(self, snapshot: Snapshot, heard: Sequence[Claimed]) -> Snapshot:
        """Use `snapshot` and the claims `heard` from now on; claims made here meanwhile may be in neither."""
        known = {one.transaction for one in heard} | {0}
        with self._lock:
            self._heard_at = time.monotonic()
            if snapshot is not self._latest:
                self._latest, self._latest_at = snapshot, self._heard_at
            own = (one for one in self._claimed if one.transaction not in known and not snapshot.sees(one.transaction))
            self._claimed = [*heard, *own]
            return snapshot.after_claims(self._claimed)


def _stamp(snapshot: Snapshot) -> bytes:
    return repr(snapshot.taken_at).encode()


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
