"""A farm of cards on a virtual clock, claimed by the real policy. Everything but the policy is a stand-in."""

from __future__ import annotations

import heapq
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Final

from shared.db.states import WorkerState
from shared.params.pools import DEFAULT_POOL
from shared.queue.policy import Farm, Lane, Lanes, Owner, Worker, is_left_alone

SNAPSHOT_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 1.0
WORK_A_SECOND: Final = 1000  # cost is a whole number
COUNTED: Final = 100  # as a snapshot counts the images of a lane

Rank = Callable[[Lanes, Farm, Worker], Iterable[Lane]]


@dataclass(frozen=True)
class Image:
    """One image: whose it is, what it needs, how long a card takes for it."""

    id: int
    owner: str
    checkpoint: str
    seconds: float

    @property
    def cost(self) -> int:
        return round(self.seconds * WORK_A_SECOND)


@dataclass(frozen=True)
class World:
    """The images and the cards: `lives` are the times at which each card joins and dies."""

    images: tuple[Image, ...]
    lives: tuple[tuple[float, float], ...]
    load_seconds: float
    residents: int = 2
    most: int | None = None  # images of one owner that may run at once

    @property
    def lower_bound(self) -> float:
        """The earliest end there could be, in seconds: all cards busy from when they join, and one load."""
        work = sum(image.seconds for image in self.images)
        times = sorted({at for life in self.lives for at in life if at < float("inf")})
        at, done = 0.0, 0.0
        for next_at in (*times, float("inf")):
            cards = sum(joins <= at < dies for joins, dies in self.lives)
            if cards and done + cards * (next_at - at) >= work:
                at += (work - done) / cards
                break
            done, at = done + cards * (next_at - at), next_at
        longest = max(image.seconds for image in self.images)
        return max(at, longest) + self.load_seconds


@dataclass
class Outcome:
    """What a run came to. Times in seconds."""

    makespan: float = 0.0
    loads: int = 0
    waits: list[float] = field(default_factory=list)
    left_alone: float = 0.0  # the longest that an image was left to others by a card with nothing to do
    fairness: list[float] = field(default_factory=list)  # Jain's index of the running work of who waits
    decisions: list[float] = field(default_factory=list)
    loads_at: list[float] = field(default_factory=list)
    ended: dict[str, list[float]] = field(default_factory=dict)  # owner -> when each image was done


@dataclass
class _Card:
    id: int
    dies_at: float
    resident: OrderedDict[str, None] = field(default_factory=OrderedDict)  # the longest unused first
    image: Image | None = None

    def as_policy_sees_it(self, load_seconds: float) -> Worker:
        free = int(self.image is None)
        return Worker(self.id, (DEFAULT_POOL,), WorkerState.READY, frozenset(self.resident), free, load_seconds)


class Simulation:
    """One run of a world under one way to rank lanes."""

    def __init__(self, world: World, rank: Rank) -> None:
        self._world = world
        self._rank = rank
        self._lanes: dict[tuple[str, str], deque[Image]] = {}
        for image in world.images:
            self._lanes.setdefault((image.owner, image.checkpoint), deque()).append(image)
        self._cards: dict[int, _Card] = {}
        self._running: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._served_at: dict[str, float] = {}
        self._unfinished = len(world.images)
        self._order = count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._seen = (Lanes(()), Farm(0.0))
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Render everything; return what it came to."""
        for number, (joins, dies) in enumerate(self._world.lives):
            self._at(joins, partial(self._join, _Card(number, dies)))
        self._at(0.0, self._look_around)
        while self._unfinished:
            now, _, happens = heapq.heappop(self._events)
            happens(now)
        return self._outcome

    def _at(self, when: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happens))

    def _join(self, card: _Card, now: float) -> None:
        self._cards[card.id] = card
        self._at(card.dies_at, partial(self._die, card))
        self._at(now, partial(self._take, card))

    def _die(self, card: _Card, now: float) -> None:
        """End a card: its image goes back to the head of its lane."""
        del now, self._cards[card.id]
        if card.image is not None:
            self._lanes[card.image.owner, card.image.checkpoint].appendleft(card.image)
            self._running[card.image.owner] -= card.image.cost
            self._in_flight[card.image.owner] -= 1

    def _look_around(self, now: float) -> None:
        """Take the snapshot that all decide on until the next; claims since are known, as Redis tells them."""
        lanes = [self._lane(*place, waiting) for place, waiting in self._lanes.items() if waiting]
        workers = tuple(card.as_policy_sees_it(self._world.load_seconds) for card in self._cards.values())
        owners = {name: self._owner(name) for name in {lane.owner for lane in lanes}}
        self._seen = Lanes(lanes), Farm(now, owners, workers)
        shares = [owner.running for owner in owners.values()]
        if any(shares):
            self._outcome.fairness.append(sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)))
        self._at(now + SNAPSHOT_SECONDS, self._look_around)

    def _lane(self, owner: str, checkpoint: str, waiting: deque[Image]) -> Lane:
        head, queued = waiting[0], min(len(waiting), COUNTED)
        return Lane(owner, checkpoint, DEFAULT_POOL, 6, False, 0, head.id, 0.0, head.cost, queued, companions="")

    def _owner(self, name: str) -> Owner:
        return Owner(self._running[name], self._served_at.get(name), self._in_flight[name], self._world.most)

    def _take(self, card: _Card, now: float) -> None:
        if card.id not in self._cards or card.image is not None:
            return
        image = self._claimed(card, now)
        if image is None:
            self._note_left_alone(card, now)
            self._at(now + LOOK_SECONDS, partial(self._take, card))
            return
        card.image = image
        self._at(now + image.seconds + self._loaded(card, image.checkpoint, now), partial(self._end, card, image))

    def _claimed(self, card: _Card, now: float) -> Image | None:
        lanes, farm = self._seen
        me = card.as_policy_sees_it(self._world.load_seconds)
        started = time.perf_counter()
        found: Image | None = None
        for lane in self._rank(lanes, farm, me):
            if self._lanes[lane.owner, lane.checkpoint]:
                found = self._lanes[lane.owner, lane.checkpoint].popleft()
                break
        self._outcome.decisions.append(time.perf_counter() - started)
        if found is not None:
            self._running[found.owner] += found.cost
            self._in_flight[found.owner] += 1
            self._served_at[found.owner] = now
            self._seen = lanes, farm.after({found.owner: found.cost}, {found.owner: 1})
            self._outcome.waits.append(now)
        return found

    def _note_left_alone(self, card: _Card, now: float) -> None:
        """Remember how long what still waits has waited when a card with nothing to do leaves it to others."""
        me = card.as_policy_sees_it(self._world.load_seconds)
        lanes = (self._lane(*place, waiting) for place, waiting in self._lanes.items() if waiting)
        if any(is_left_alone(lane, self._seen[1], me) for lane in lanes):
            self._outcome.left_alone = now  # all were queued at 0

    def _loaded(self, card: _Card, checkpoint: str, now: float) -> float:
        """Make a checkpoint resident; return what that took."""
        if checkpoint in card.resident:
            card.resident.move_to_end(checkpoint)
            return 0.0
        while len(card.resident) >= self._world.residents:
            card.resident.popitem(last=False)
        card.resident[checkpoint] = None
        self._outcome.loads += 1
        self._outcome.loads_at.append(now)
        return self._world.load_seconds

    def _end(self, card: _Card, image: Image, now: float) -> None:
        if card.image is not image or card.id not in self._cards:
            return
        card.image = None
        self._running[image.owner] -= image.cost
        self._in_flight[image.owner] -= 1
        self._outcome.ended.setdefault(image.owner, []).append(now)
        self._unfinished -= 1
        self._outcome.makespan = now
        self._take(card, now)
