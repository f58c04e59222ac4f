"""The policy, a pure function over a snapshot, decides which lane is served next.

Worker, simulator and "why is it waiting" all call it.

The rules, in their order:

1. A worker sees the lanes of its own pools whose images find room in its memory.
2. A lane whose checkpoint is resident on another ready worker with room is left alone, until its head has waited for as
   long as loading the checkpoint here would take, and `AFFINITY_SECONDS` at most.
3. Lanes of an owner with as many images running as may run at once are left out, urgent ones too, until one ends.
   Everybody else is served as if these were not there.
4. Urgent lanes are first.
5. Then come owners with nothing running, of them the one served longest ago. This memory lets a newcomer in: without it
   the oldest backlog wins every tie.
6. Then comes the owner with the least running work. An owner whose work is greater by at most `SLACK` and one image may
   be first with a lane that is resident here. Without that, a thousand cards change checkpoints most of the time.
7. Within an owner the priority decides, then age. Lanes queued within affinity's time count as of one age: of these the
   resident ones are first, then the one that this worker of all should load. So no image is passed over because of
   affinity by one that was queued more than `AFFINITY_SECONDS` later.
8. Of resident lanes the shorter one is first: the longer one occupies this worker for longer, so its checkpoint stays.

What this worker should load is its own choice by weighted rendezvous hashing (Thaler and Ravishankar 1998;
Schindelhauer and Schomaker 2005): workers that see the same snapshot choose differently, and each the same again.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import groupby, product, takewhile
from typing import Final, Protocol

from shared.db.states import WorkerState
from shared.models.memory import Footprint, Precision

AFFINITY_SECONDS: Final = 15.0  # no image waits longer than this because of affinity
SLACK: Final = 0.3  # share of the least running work by which an owner may be ahead because of affinity


Place = tuple[str, str, str, int, str]
"""The key of a lane: owner, checkpoint (SHA-256), pool, memory class, companions (`ModelSet.companions`)."""


@dataclass(frozen=True)
class Lane:
    """The queued images that the same workers may render for the same owner, described by the one at their head."""

    owner: str
    checkpoint: str  # SHA-256
    pool: str
    memory_class: int
    urgent: bool
    priority: int
    head: int  # id of the image
    queued_at: float  # of the head; seconds on the database's clock
    cost: int = 1  # of the head
    queued: int = 1  # images in the lane that are as urgent as its head, counted up to the snapshot's bound
    needs: int | None = None  # bytes of a card's memory, of each image, in half precision; None: not known
    needs_single: int | None = None  # the same in single precision
    companions: str = field(kw_only=True)  # required: the version before stores lanes that are merged over them

    @property
    def place(self) -> Place:
        """Its key, which does not depend on the image at its head."""
        return self.owner, self.checkpoint, self.pool, self.memory_class, self.companions

    @property
    def footprint(self) -> Footprint:
        """What its images need memory for."""
        return Footprint(self.checkpoint, self.companions, self.memory_class)

    def need(self, precision: Precision) -> int | None:
        """Return the bytes that each image needs of a card that renders in this precision; None: not known."""
        return self.needs if precision == "half" else self.needs_single


@dataclass(frozen=True)
class Owner:
    """An owner's running work, and when it was served last."""

    running: int = 0  # cost of its running images
    served_at: float | None = None  # seconds on the database's clock
    images: int = 0  # that run
    most: int | None = None  # images that may run at once; None: no limit

    @property
    def room(self) -> int | None:
        """How many more of its images may run now; None: any number."""
        return None if self.most is None else max(0, self.most - self.images)

    @property
    def is_full(self) -> bool:
        return self.room == 0


_NEW: Final = Owner()


class Served(Protocol):
    """A worker, or another that serves pools."""

    @property
    def pools(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Worker:
    """A living worker, as the policy sees it."""

    id: int
    pools: tuple[str, ...]
    state: WorkerState = WorkerState.READY
    resident: frozenset[str] = frozenset()
    free_slots: int = 1
    load_seconds: float | None = None  # what its latest checkpoint took to load from its file
    name: str = ""  # for people
    memory_bytes: int | None = None  # what its card offers; None: no limit that is known
    precision: Precision = "half"

    @property
    def has_room(self) -> bool:
        return self.state == WorkerState.READY and self.free_slots > 0

    @property
    def affinity_seconds(self) -> float:
        """How long a lane is left to a worker that has its checkpoint, instead of loading it here."""
        return AFFINITY_SECONDS if self.load_seconds is None else min(self.load_seconds, AFFINITY_SECONDS)


@dataclass(frozen=True)
class Farm:
    """The farm that lanes are ranked for: its owners and workers at `now`, seconds on the database's clock."""

    now: float
    owners: Mapping[str, Owner] = field(default_factory=dict)
    workers: tuple[Worker, ...] = ()

    def after(self, costs: Mapping[str, int], images: Mapping[str, int]) -> Farm:
        """Return the farm after owners were given so many images of these costs, by claims that a snapshot does not
        know. Both name the same owners.
        """
        owners = {**self.owners}
        for name, cost in costs.items():
            before = self.owner(name)
            owners[name] = replace(
                before,
                running=before.running + cost,
                served_at=max(self.now, before.served_at or self.now),
                images=before.images + images[name],
            )
        later = replace(self, owners=owners)
        # Its workers are the same, and may be a thousand.
        later.__dict__.update({name: getattr(self, name) for name in ("with_room", "sizes")})
        return later

    def owner(self, name: str) -> Owner:
        return self.owners.get(name, _NEW)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Pool -> how many workers it has."""
        return Counter(pool for worker in self.workers for pool in worker.pools)

    @cached_property
    def with_room(self) -> Mapping[tuple[str, str], Sequence[Worker]]:
        """(pool, checkpoint) -> the workers that could render it at once."""
        found: dict[tuple[str, str], list[Worker]] = {}
        for worker in self.workers:
            for place in product(worker.pools, worker.resident) if worker.has_room else ():
                found.setdefault(place, []).append(worker)
        return found


class Line:
    """The lanes of one owner and one urgency, for the workers of one pool: by priority, then age."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        ordered = sorted(lanes, key=lambda lane: (-lane.priority, lane.queued_at, lane.head))
        self.priorities = [tuple(equals) for _, equals in groupby(ordered, key=lambda lane: lane.priority)]
        self.by_checkpoint: dict[str, list[Lane]] = {}
        for lane in self.priorities[0]:
            self.by_checkpoint.setdefault(lane.checkpoint, []).append(lane)

    def fitting(self, me: Worker) -> Iterator[Sequence[Lane]]:
        """Yield the lanes of each priority that `me` has memory for, the highest priority first."""
        for lanes in self.priorities:
            if found := lanes if me.memory_bytes is None else [lane for lane in lanes if fits(lane, me)]:
                yield found

    def next_of(self, checkpoints: Iterable[str], seconds: float) -> Iterator[Lane]:
        """Yield the lanes of these checkpoints that were queued within `seconds` of the line's oldest, by rule 8."""
        latest = self.priorities[0][0].queued_at + seconds
        lanes = [lane for checkpoint in checkpoints for lane in self.by_checkpoint.get(checkpoint, ())]
        yield from sorted((lane for lane in lanes if lane.queued_at <= latest), key=_shortest_first)


class Lanes:
    """The lanes of a snapshot, put in order once for the many decisions that are made on it."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self._pools: dict[str, list[Lane]] = {}
        for lane in lanes:
            self._pools.setdefault(lane.pool, []).append(lane)
        self._lines: dict[tuple[str, ...], tuple[Mapping[str, Line], Mapping[str, Line]]] = {}

    def all_of(self, pool: str) -> Sequence[Lane]:
        """Return the lanes of one pool, in no order."""
        return self._pools.get(pool, ())

    def lines_of(self, pools: tuple[str, ...], *, urgent: bool) -> Mapping[str, Line]:
        """Return the lines for the workers of these pools, by owner; they are put in order once."""
        if pools not in self._lines:
            lanes = [lane for pool in pools for lane in self.all_of(pool)]
            self._lines[pools] = _lines(lane for lane in lanes if not lane.urgent), _lines(filter(_is_urgent, lanes))
        return self._lines[pools][urgent]


def _shortest_first(lane: Lane) -> tuple[int, int]:
    return lane.queued, lane.head


def _is_urgent(lane: Lane) -> bool:
    return lane.urgent


def _lines(lanes: Iterable[Lane]) -> dict[str, Line]:
    by_owner: dict[str, list[Lane]] = {}
    for lane in lanes:
        by_owner.setdefault(lane.owner, []).append(lane)
    return {owner: Line(waiting) for owner, waiting in by_owner.items()}


def rank(lanes: Lanes | Iterable[Lane], farm: Farm, me: Worker) -> Iterator[Lane]:
    """Yield the lanes that `me` should try, the best first, each once, and compute no more than are taken."""
    ordered = lanes if isinstance(lanes, Lanes) else Lanes(lanes)
    seen: set[Lane] = set()
    for urgent in (True, False):
        for lane in _ranked(ordered.lines_of(me.pools, urgent=urgent), farm, me):
            if lane not in seen and fits(lane, me):
                seen.add(lane)
                yield lane


def fits(lane: Lane, worker: Worker) -> bool:
    """Return whether the images of this lane find room in the memory that `worker` offers."""
    need = lane.need(worker.precision)
    return need is None or worker.memory_bytes is None or need <= worker.memory_bytes


def share_a_pool(one: Served, other: Served) -> bool:
    """Return whether both serve a pool that the other does too."""
    return not set(one.pools).isdisjoint(other.pools)


def is_left_alone(lane: Lane, farm: Farm, me: Worker) -> bool:
    """Return whether `me` leaves this lane to a worker that has its checkpoint, and room for it."""
    if lane.checkpoint in me.resident or farm.now - lane.queued_at >= me.affinity_seconds:
        return False
    others = farm.with_room.get((lane.pool, lane.checkpoint), ())
    return any(other.id != me.id and fits(lane, other) for other in others)


def _ranked(lines: Mapping[str, Line], farm: Farm, me: Worker) -> Iterator[Lane]:
    """Yield what rules 3, 5 and 6 give, a lane perhaps twice."""
    served = (name for name in lines if not farm.owner(name).is_full)
    owners = sorted(served, key=lambda name: _service_order(name, farm.owner(name)))
    idle = list(takewhile(lambda name: farm.owner(name).running == 0, owners))
    busy = owners[len(idle) :]
    for name in idle:
        yield from _of_owner(lines[name], farm, me)
    for name in busy:
        ahead = farm.owner(name).running - (1 + SLACK) * farm.owner(busy[0]).running
        near = lines[name].next_of(me.resident, me.affinity_seconds)
        yield from (lane for lane in near if ahead <= lane.cost)
    for name in busy:
        yield from _of_owner(lines[name], farm, me)


def _service_order(name: str, owner: Owner) -> tuple[float, float, str]:
    return owner.running, float("-inf") if owner.served_at is None else owner.served_at, name


def _of_owner(line: Line, farm: Farm, me: Worker) -> Iterator[Lane]:
    """Yield what rule 7 gives."""
    for lanes in line.fitting(me):
        latest = lanes[0].queued_at + me.affinity_seconds
        of_one_age = bisect_right(lanes, latest, key=lambda lane: lane.queued_at)
        here = (lane for lane in lanes[:of_one_age] if lane.checkpoint in me.resident)
        yield from sorted(here, key=_shortest_first)
        others = [lane for lane in lanes if not is_left_alone(lane, farm, me)]
        # As many as there are workers that choose differently: a lone worker takes the oldest.
        choosing = max((farm.sizes.get(pool, 1) for pool in me.pools), default=1)
        choice = min(of_one_age, choosing, len(others))
        yield from sorted(others[:choice], key=lambda lane: _distance(me.id, lane.checkpoint) / math.sqrt(lane.queued))
        yield from others[choice:]


@lru_cache(2**16)
def _distance(worker_id: int, checkpoint: str) -> float:
    """Return a number drawn from the exponential distribution, always the same for this pair."""
    digest = blake2b(f"{worker_id} {checkpoint}".encode(), digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 1) / 2**64)
