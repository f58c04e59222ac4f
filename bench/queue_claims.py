"""Claimer from a long queue, by claimers that are processes of their own: `bench.queue` starts them as this module.

50,000 queued images of 20 owners over 132 of 300 checkpoints, so 2,640 lanes; each claimer is a registered worker with
two resident checkpoints, and decides as a worker does: shared snapshot, policy, one claim, a note of it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from redis import Redis
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db import sessions as database
from shared.db.sessions import Sessions, transact
from shared.db.states import WorkerState
from shared.models.model_set import ModelSet
from shared.params.pools import DEFAULT_POOL
from shared.params.render import RenderParams
from shared.queue import policy, workers
from shared.queue.claim import claim
from shared.queue.snapshot import Snapshots
from shared.queue.submit import Admission, submit

OWNERS: Final = 20
CHECKPOINTS: Final = 300
ASKED_FOR: Final = 132
GO: Final = "bench:go"
CLAIMING: Final = "bench:claiming"

Seconds = list[float]


def fill(sessions: Sessions, images: int) -> None:
    """Queue so many images, evenly over all lanes, and let PostgreSQL know of them as its autovacuum would."""
    lanes = [(owner, checkpoint) for owner in range(OWNERS) for checkpoint in range(ASKED_FOR)]
    random.Random(1).shuffle(lanes)
    for number, (owner, checkpoint) in enumerate(lanes):
        count = images // len(lanes) + (number < images % len(lanes))
        params = RenderParams(prompt="nothing", checkpoint="none", width=64, height=64, steps=1, seed=1, count=count)
        transact(sessions, lambda session: _submit(session, owner, checkpoint, params))  # noqa: B023 - called at once
    transact(sessions, lambda session: session.execute(text("ANALYZE images, jobs")))


def _submit(session: Session, owner: int, checkpoint: int, params: RenderParams) -> None:
    submit(session, Admission(f"owner {owner}", params, ModelSet(checkpoint=f"{checkpoint:064}")))


def measure(database_url: str, redis_url: str, claimers: int, seconds: float) -> tuple[Seconds, Seconds, float]:
    """Return the seconds of each claim alone, and with its decision, in order; and the claims a second of all."""
    redis = Redis.from_url(redis_url)
    redis.flushdb()
    command = [sys.executable, "-m", "bench.queue_claims", database_url, redis_url, str(seconds)]
    started = [subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE) for seed in range(claimers)]
    while int(redis.get(CLAIMING) or 0) < claimers:  # type: ignore[arg-type]  # not awaitable
        time.sleep(0.05)
    redis.set(GO, b"1")
    results = [json.loads(process.communicate()[0]) for process in started]
    claims = sorted(second for claims, _ in results for second in claims)
    decided = sorted(second for _, decided in results for second in decided)
    return claims, decided, len(claims) / seconds


def _claimer(database_url: str, redis_url: str, seconds: float, seed: int) -> tuple[Seconds, Seconds]:
    engine = database.connect(database_url, pool_size=2, plans_once=True)
    sessions, redis = database.sessions(engine), Redis.from_url(redis_url)
    snapshots, me = Snapshots(sessions, redis), transact(sessions, lambda session: _registered(session, seed))
    redis.incr(CLAIMING)
    while not redis.get(GO):
        time.sleep(0.001)
    claims, decided = [], []
    for first, decision, last in _claimed(database.autocommit(sessions), snapshots, me, time.perf_counter() + seconds):
        claims.append(last - decision)
        decided.append(last - first)
    return claims, decided


def _claimed(
    sessions: Sessions, snapshots: Snapshots, me: policy.Worker, end: float
) -> Iterator[tuple[float, float, float]]:
    """Yield when each claim was asked for, was decided on, and was had."""
    while (first := time.perf_counter()) < end:
        seen = snapshots.current()
        ranked = policy.rank(seen.ordered, seen.farm, me)
        decision = time.perf_counter()
        answers = (transact(sessions, partial(claim, me=me, lanes=[lane])) for lane in ranked)
        taken = next((ours for answer in answers for ours in answer), None)
        last = time.perf_counter()
        if taken is None:
            raise SystemExit("The queue ran dry.")
        snapshots.add_claim({taken.owner: taken.cost}, {taken.owner: 1})
        yield first, decision, last


def _registered(session: Session, seed: int) -> policy.Worker:
    name, resident = f"bench/{seed}", [f"{number:064}" for number in random.Random(seed).sample(range(CHECKPOINTS), 2)]
    known: dict[str, Any] = {"name": name, "host": "bench", "pid": os.getpid(), "card": f"cpu:{seed}", "card_name": ""}
    terms: dict[str, Any] = {"pool": DEFAULT_POOL, "slots": 100_000, "lease_seconds": 600}
    worker_id = workers.register(session, **known, **terms)
    said: dict[str, Any] = {"state": WorkerState.READY, "phase": "", "load_seconds": 5.0, "lease_seconds": 600}
    workers.heartbeat(session, worker_id, running={}, resident=resident, **said)
    return policy.Worker(worker_id, (DEFAULT_POOL,), resident=frozenset(resident), load_seconds=5.0)


if __name__ == "__main__":
    print(json.dumps(_claimer(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))))
