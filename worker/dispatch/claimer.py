"""Which image is next for this worker: the policy over a snapshot, then one claim."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice, repeat
from threading import Lock
from typing import Final, NamedTuple, get_args

from redis import RedisError

from shared.db.sessions import autocommit, transact
from shared.db.states import WorkerState
from shared.errors import Unavailable
from shared.messaging.tickets import Ticket, take
from shared.models import catalogue
from shared.models.memory import Footprint, Precision
from shared.models.model_set import NO_FILE
from shared.queue import policy, snapshot
from shared.queue.claim import Claim, claim, is_any
from shared.queue.policy import Lane
from shared.queue.snapshot import Snapshot, Snapshots
from worker.context import Worker
from worker.dispatch.coalesce import Coalescer
from worker.jobs_left import JobsLeft

_AVOIDED_SECONDS: Final = 30.0
_MOST_LANES: Final = 1000  # read if some of the images that wait are not for this worker
_Avoided = tuple[str, str | None, Footprint | None]
"""A checkpoint with an owner and a footprint, or with None for all of them."""


class Assignment(NamedTuple):
    """A ticket that a slot has to consume, and the claim that it brought; each may be missing."""

    ticket: Ticket | None
    claim: Claim | None


NO_ASSIGNMENT: Final = Assignment(None, None)


class Claimer:
    """Claims images for the slots of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._snapshots = Snapshots(worker.sessions, worker.redis)
        self._autocommit = autocommit(worker.sessions)
        self._soon = Coalescer(partial(self._for_slots, snapshot.MAX_AGE_SECONDS))
        self._fresh = Coalescer(partial(self._for_slots, 0.0))
        self._lock = Lock()
        self._avoided: dict[_Avoided, float] = {}  # -> monotonic time until which others have it
        self._avoided_jobs = JobsLeft(_AVOIDED_SECONDS)
        self._ended = set[str]()  # owners of images that ended here since a shared snapshot last held nothing to claim

    def next(self, ticket: Ticket | None = None) -> Assignment:
        """Claim an image for `ticket`; without one, for a ticket taken from Redis now. Raises Unavailable.

        Before it says that there is no image it decides on a snapshot taken now. Slots that call at the same time are
        served together.
        """
        soon = self._soon(ticket)
        return self._fresh(soon.ticket) if soon.ticket and not soon.claim else soon

    def has_some(self) -> bool:
        """True if something waits that the policy gives to this worker now. Raises Unavailable.

        Where all that waits is of owners who have as many images running as may run, and one of them has ended here,
        it looks at a snapshot taken now: what may run next should not wait until the shared one is old.
        """
        seen = self._snapshots.current()
        return self._has_some(seen) or (self._makes_room(seen) and self._has_some(self._snapshots.current(0.0)))

    def _has_some(self, seen: Snapshot) -> bool:
        ranked, left = self._ranked(seen), self._jobs_left()
        if not left:
            return next(ranked, None) is not None
        lanes = list(islice(ranked, _MOST_LANES))
        return bool(lanes) and transact(self._worker.sessions, partial(is_any, lanes=lanes, but=left))

    def _makes_room(self, seen: Snapshot) -> bool:
        """True if an image has ended here of an owner who waits for that in `seen`. It answers so once."""
        with self._lock:
            ended, self._ended = self._ended, set()
        return any(lane.owner in ended and seen.farm.owner(lane.owner).is_full for lane in seen.lanes)

    def end(self, claim: Claim) -> None:
        """Hear that an image has ended in this process."""
        with self._lock:
            self._ended.add(claim.owner)

    def next_to_load(self) -> str | None:
        """Return the first checkpoint (SHA-256) that this worker would have to load, as things stand; None: it needs
        no other. Raises Unavailable.

        Pictures that are only enlarged wait under the name of their upscaler, or of no file: neither is a checkpoint.
        """
        here = {NO_FILE, *self._worker.card.resident()}
        ranked = islice(self._ranked(self._snapshots.current()), _MOST_LANES)
        files = dict.fromkeys(lane.checkpoint for lane in ranked if lane.checkpoint not in here)
        upscalers = transact(self._worker.sessions, partial(catalogue.upscalers, hashes=files)) if files else ()
        return next((sha256 for sha256 in files if sha256 not in upscalers), None)

    def avoid(self, checkpoint: str, owner: str | None = None) -> None:
        """Leave images of `checkpoint`, of all owners or of one, to other workers for a while."""
        self._avoid((checkpoint, owner, None))

    def avoid_like(self, claim: Claim) -> None:
        """Leave `claim`'s image, and those of its lane, to other workers for a while."""
        self._avoid((claim.checkpoint, claim.owner, claim.footprint))

    def avoid_job(self, claim: Claim, reason: str) -> None:
        """Leave `claim`'s job to other workers for a while."""
        self._avoided_jobs.add(claim, reason)

    def _jobs_left(self) -> frozenset[int]:
        """Return the jobs that this worker claims no image of."""
        return frozenset(self._worker.unreadable_jobs.reasons()).union(self._avoided_jobs.reasons())

    def _avoid(self, images: _Avoided) -> None:
        now = time.monotonic()
        with self._lock:
            still = {avoided: until for avoided, until in self._avoided.items() if until > now}
            self._avoided = still | {images: now + _AVOIDED_SECONDS}

    def better_worker(self) -> int | None:
        """Return a worker with room to which the policy leaves a lane that is not for this one now."""
        seen = self._snapshots.current()
        me = self._worker.as_policy_sees_it()
        left = self._worker.unreadable_jobs.places() | self._avoided_jobs.places()
        left_alone = [
            lane
            for lane in seen.lanes
            if lane.pool in me.pools
            and not seen.farm.owner(lane.owner).is_full
            and (
                self._is_avoided(lane)
                or (lane.owner, lane.checkpoint) in left
                or policy.is_left_alone(lane, seen.farm, me)
            )
        ]
        others = [
            other
            for (place, precision), least in _least(left_alone).items()
            for other in seen.farm.with_room.get(place, ())
            if other.id != me.id and other.precision == precision and policy.fits(least, other)
        ]
        return max(others, key=lambda other: other.free_slots).id if others else None

    def other_worker(self) -> int | None:
        """Return the other worker of the same pool with the most room, to which a drained one passes its tickets."""
        me, workers = self._worker, self._snapshots.current().farm.workers
        others = [other for other in workers if other.id != me.id and policy.share_a_pool(me, other) and other.has_room]
        return max(others, key=lambda other: other.free_slots).id if others else None

    def has_company(self) -> bool:
        """Return whether another worker of the same pool takes images. Raises Unavailable."""
        me, workers = self._worker, self._snapshots.current().farm.workers
        return any(it.id != me.id and policy.share_a_pool(me, it) and it.state == WorkerState.READY for it in workers)

    def _for_slots(self, max_age: float, slots: Sequence[Ticket | None]) -> list[Assignment]:
        """Return a ticket for each slot that has none, and a claim for each ticket, as far as there are any."""
        taken = iter(self._tickets(slots.count(None)))
        tickets = [ticket or next(taken, None) for ticket in slots]
        claims = iter(self._claims(len(tickets) - tickets.count(None), max_age))
        return [Assignment(ticket, next(claims, None)) if ticket else NO_ASSIGNMENT for ticket in tickets]

    def _tickets(self, count: int) -> list[Ticket]:
        worker = self._worker
        if count and worker.takes_images:
            with suppress(RedisError):
                return take(worker.redis, worker.farm_id, worker.id, worker.pools, count)
        return []

    def _claims(self, count: int, max_age: float) -> list[Claim]:
        """Return `count` claims, or as many as there are, decided on a snapshot of at most this age in seconds."""
        is_wanted = count and self._worker.takes_images  # which may have changed while this slot waited for others
        taken = self._take(self._snapshots.current(max_age), count) if is_wanted else []
        if taken:
            costs, images = defaultdict[int, Counter[str]](Counter), defaultdict[int, Counter[str]](Counter)
            for each in taken:
                costs[each.transaction][each.owner] += each.cost
                images[each.transaction][each.owner] += 1
            for transaction, of_owners in costs.items():
                self._snapshots.add_claim(of_owners, images[transaction], transaction)
        return taken

    def _take(self, seen: Snapshot, count: int) -> list[Claim]:
        """Claim from lane after lane. The claims of one statement stay if the next one fails."""
        me, left = self._worker.as_policy_sees_it(), self._jobs_left()
        lanes, taken = self._in_order(seen, count), list[Claim]()
        while batch := list(islice(lanes, count - len(taken))):
            try:
                taken += transact(self._autocommit, partial(claim, me=me, lanes=batch, but=left))
            except Unavailable:
                if not taken:
                    raise
                break
        return taken

    def _in_order(self, seen: Snapshot, count: int) -> Iterator[Lane]:
        """Yield the lanes of `count` images as the policy gives them one after the other; then each other lane `count`
        times, in their order, because the first may hold fewer images than the snapshot says.
        """
        costs, images, yielded = Counter[str](), Counter[str](), Counter[Lane]()
        for _ in range(count):
            ranked = self._ranked(seen.after(costs, images))
            lane = next((lane for lane in ranked if yielded[lane] < lane.queued), None)
            if lane is None:
                break
            yield lane
            yielded[lane] += 1
            costs[lane.owner] += lane.cost
            images[lane.owner] += 1
        for lane in self._ranked(seen):
            if lane not in yielded:
                room = seen.farm.owner(lane.owner).room
                most = count if room is None else min(count, room - images[lane.owner])
                images[lane.owner] += most
                yield from repeat(lane, most)

    def _ranked(self, seen: Snapshot) -> Iterator[Lane]:
        ranked = policy.rank(seen.ordered, seen.farm, self._worker.as_policy_sees_it())
        return (lane for lane in ranked if not self._is_avoided(lane))

    def _is_avoided(self, lane: Lane) -> bool:
        avoided = self._avoided
        if not avoided:  # as nearly always, and every lane of every ranking is asked for
            return False
        now, of_owner = time.monotonic(), (lane.checkpoint, lane.owner)
        of_lane = ((lane.checkpoint, None, None), (*of_owner, None), (*of_owner, lane.footprint))
        return any(avoided.get(what, now) > now for what in of_lane)


def _least(lanes: Sequence[Lane]) -> dict[tuple[tuple[str, str], Precision], Lane]:
    """Return for each (pool, checkpoint) and precision the lane that needs the least memory."""
    least: dict[tuple[tuple[str, str], Precision], Lane] = {}
    for precision in get_args(Precision):
        ordered = sorted(lanes, key=lambda lane: -(lane.need(precision) or 0))
        least |= {((lane.pool, lane.checkpoint), precision): lane for lane in ordered}
    return least
