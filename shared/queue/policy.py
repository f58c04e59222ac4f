"""Who is served next: a pure function over a snapshot. Worker, simulator and "why is it waiting" all call it.

The rules, in their order:

1. A worker sees the lanes of its own pool.
2. Affinity: a lane whose checkpoint is resident on another ready worker with room is left to that worker, until its
   head has waited for as long as loading the checkpoint here would take, and `AFFINITY_SECONDS` at most.
3. Urgent lanes go first.
4. Then the owner with the least running work, and of those with equal work the one served longest ago. The memory is
   what lets a newcomer in: without it the oldest backlog wins every tie.
5. Within an owner the priority, then what has waited longer than affinity may cost, then what is resident here, then
   age.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from shared.states import WorkerState

DEFAULT_POOL = "default"  # that every job is queued for and every worker serves
AFFINITY_SECONDS = 15.0  # nobody waits longer than this for affinity's sake


@dataclass(frozen=True)
class Lane:
    """The queued images that the same workers may render for the same owner, told by the one at their head."""

    owner: str
    checkpoint: str  # SHA-256
    pool: str
    memory_class: int
    urgent: bool
    priority: int
    head: int  # id of the image
    queued_at: float  # of the head; seconds on the database's clock


@dataclass(frozen=True)
class Owner:
    """What an owner has of the farm now, and when it was given something last."""

    running: int = 0  # cost of its running images
    served_at: float | None = None  # seconds on the database's clock


@dataclass(frozen=True)
class Worker:
    """A living worker, as far as the policy cares."""

    id: int
    pool: str
    state: WorkerState = WorkerState.READY
    resident: frozenset[str] = frozenset()
    free_slots: int = 1
    load_seconds: float | None = None  # what its latest checkpoint took to load

    @property
    def has_room(self) -> bool:
        return self.state == WorkerState.READY and self.free_slots > 0

    @property
    def affinity_seconds(self) -> float:
        """How long a lane is left to a worker that has its checkpoint, instead of loading it here."""
        return AFFINITY_SECONDS if self.load_seconds is None else min(self.load_seconds, AFFINITY_SECONDS)


@dataclass(frozen=True)
class Farm:
    """The farm's side of the decision: its owners and workers at `now`, seconds on the database's clock."""

    now: float
    owners: Mapping[str, Owner] = field(default_factory=dict)
    workers: tuple[Worker, ...] = ()

    def after(self, owner: str, cost: int) -> Farm:
        """Return the farm after `owner` was given an image of `cost`: for claims that a shared snapshot cannot know."""
        before = self.owners.get(owner, Owner())
        served = Owner(before.running + cost, max(self.now, before.served_at or self.now))
        return replace(self, owners={**self.owners, owner: served})


def rank(lanes: Iterable[Lane], farm: Farm, me: Worker) -> list[Lane]:
    """Return the lanes that `me` should try, the best first."""
    elsewhere = {
        sha256
        for worker in farm.workers
        if worker.id != me.id and worker.pool == me.pool and worker.has_room
        for sha256 in worker.resident - me.resident
    }
    mine = [
        lane
        for lane in lanes
        if lane.pool == me.pool and (lane.checkpoint not in elsewhere or _is_overdue(lane, farm, me))
    ]
    return sorted(mine, key=lambda lane: _key(lane, farm, me))


def _is_overdue(lane: Lane, farm: Farm, me: Worker) -> bool:
    return farm.now - lane.queued_at >= me.affinity_seconds


def _key(lane: Lane, farm: Farm, me: Worker) -> tuple[float | str, ...]:
    owner = farm.owners.get(lane.owner, Owner())
    residency = 0 if _is_overdue(lane, farm, me) else 1 if lane.checkpoint in me.resident else 2
    return (
        not lane.urgent,
        owner.running,
        float("-inf") if owner.served_at is None else owner.served_at,
        lane.owner,
        -lane.priority,
        residency,
        lane.queued_at,
        lane.head,
    )
