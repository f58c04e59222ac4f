"""Hands for the queue's tests: each call is one transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import select

from shared.db import sessions as database
from shared.db.states import WorkerState
from shared.db.tables import Image, Job
from shared.queue import policy, reaper, snapshot, transitions, workers
from shared.queue.claim import Claim, claim
from shared.queue.transitions import Finish


@dataclass
class Farmhand:
    """Does to the queue of `sessions` what API, workers and people do."""

    sessions: database.Sessions
    numbers: Iterable[int] = field(default_factory=lambda: count(1))

    def run(self, move: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return database.transact(self.sessions, lambda session: move(session, *args, **options))

    def job(self, job_id: int) -> Job:
        with self.sessions() as session:
            return session.get_one(Job, job_id)

    def images(self, job_id: int) -> list[Image]:
        with self.sessions() as session:
            return list(session.scalars(select(Image).where(Image.job_id == job_id).order_by(Image.index)))

    def finish(self, ours: Claim) -> Finish:
        return self.run(transitions.finish, ours, 1000).finish

    def worker(self, *, pool: str = "default", lease_seconds: float = 20, slots: int = 8) -> Workhand:
        name = f"host/cpu:{next(iter(self.numbers))}"
        worker_id = self.run(
            workers.register,
            name=name,
            host="host",
            pid=1,
            card="cpu:0",
            card_name="CPU",
            pool=pool,
            slots=slots,
            lease_seconds=lease_seconds,
        )
        return Workhand(self, worker_id, name, pool)


@dataclass
class Workhand:
    """One registered worker."""

    hand: Farmhand
    id: int
    name: str
    pool: str

    def claim(self) -> Claim | None:
        now = self.hand.run(snapshot.take)
        told = next((worker for worker in now.farm.workers if worker.id == self.id), policy.Worker(self.id, ()))
        pools = tuple(self.pool.split(","))
        me = policy.Worker(self.id, pools, memory_bytes=told.memory_bytes, precision=told.precision)
        ranked = policy.rank(now.lanes, now.farm, me)
        return next((ours for lane in ranked for ours in self.hand.run(claim, me, [lane])), None)

    def heartbeat(self, running: dict[int, int] | None = None, **said: Any) -> workers.Heartbeat | None:
        usual = {
            "state": WorkerState.READY,
            "phase": "steps",
            "resident": [],
            "load_seconds": None,
            "lease_seconds": 20,
        }
        return self.hand.run(workers.heartbeat, self.id, running=running or {}, **(usual | said))

    def mark_dead(self, *, crashed: bool = False, **what: Any) -> int:
        return self.hand.run(reaper.mark_dead, self.id, reason="gone", crashed=crashed, **what)
