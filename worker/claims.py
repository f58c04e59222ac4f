"""Which image is next for this worker: the policy over a snapshot, then one claim."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from threading import Lock
from typing import Final

import structlog
from sqlalchemy.orm import Session

from shared.database import transact
from shared.queue import policy, snapshot
from shared.queue.claim import Claim, NotUnderstood, claim
from shared.queue.policy import Lane, Place
from shared.queue.snapshot import Snapshot, Snapshots
from shared.states import WorkerState
from worker.together import Together
from worker.worker import Worker

log = structlog.get_logger(__name__)

_AVOIDED_SECONDS: Final = 30.0
_Avoided = tuple[str, str | None] | Place
"""A checkpoint with an owner, or with None for all owners; or a lane."""


class Claims:
    """The claims of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._snapshots = Snapshots(worker.sessions, worker.redis)
        self._soon = Together(partial(self._for_slots, snapshot.MAX_AGE_SECONDS))
        self._fresh = Together(partial(self._for_slots, 0.0))
        self._lock = Lock()
        self._avoided: dict[_Avoided, float] = {}  # -> monotonic time until which others have it

    def next(self) -> Claim | None:
        """Claim an image; asks for a snapshot taken now before it says that there is none. Raises Unavailable.

        Slots that ask at the same time get theirs in one transaction.
        """
        return self._soon(None) or self._fresh(None)

    def has_some(self) -> bool:
        """True if something waits that the policy gives to this worker now. Raises Unavailable."""
        return next(self._ranked(self._snapshots.current()), None) is not None

    def avoid(self, checkpoint: str, owner: str | None = None) -> None:
        """Leave images of `checkpoint`, of all owners or of one, to other workers for a while."""
        self._avoid((checkpoint, owner))

    def better_worker(self) -> int | None:
        """Return a worker with room to which the policy leaves a lane that is not for this one now."""
        seen = self._snapshots.current()
        me = self._worker.as_policy_sees_it()
        left = [
            lane
            for lane in seen.lanes
            if lane.pool in me.pools and (self._is_avoided(lane) or policy.is_left_alone(lane, seen.farm, me))
        ]
        others = [
            other
            for place, least in _least(left).items()
            for other in seen.farm.with_room.get(place, ())
            if other.id != me.id and policy.fits(least, other)
        ]
        return max(others, key=lambda other: other.free_slots).id if others else None

    def other_worker(self) -> int | None:
        """Return the worker of the same pool with the most room, not this one: a drained one has tickets to pass on."""
        me, workers = self._worker, self._snapshots.current().farm.workers
        others = [other for other in workers if other.id != me.id and policy.share_a_pool(me, other) and other.has_room]
        return max(others, key=lambda other: other.free_slots).id if others else None

    def has_company(self) -> bool:
        """Return whether another worker of the same pool takes images. Raises Unavailable."""
        me, workers = self._worker, self._snapshots.current().farm.workers
        return any(it.id != me.id and policy.share_a_pool(me, it) and it.state == WorkerState.READY for it in workers)

    def _for_slots(self, max_age: float, slots: Sequence[None]) -> list[Claim | None]:
        """Return a claim for each of `slots`, None for those that go without."""
        taken = self._take(self._snapshots.current(max_age), len(slots))
        if taken:
            given = Counter[str]()
            for ours in taken:
                given[ours.owner] += ours.cost
            self._snapshots.note(given)
        return [*taken, *[None] * (len(slots) - len(taken))]

    def _take(self, seen: Snapshot, count: int) -> list[Claim]:
        """Claim from the first lanes that have images which this version of the farm understands."""
        me = self._worker.as_policy_sees_it()
        while True:
            try:
                return transact(self._worker.sessions, partial(self._taken, me=me, seen=seen, count=count))
            except NotUnderstood as error:
                if count == 1:
                    log.warning("job not understood: left to others", worker=me.id, lane=error.place, reason=str(error))
                    self._avoid(error.place)
                count = 1  # what is before it in its lane may be understood

    def _taken(self, session: Session, me: policy.Worker, seen: Snapshot, count: int) -> list[Claim]:
        return claim(session, me, self._turns(seen, count), count)  # ranked anew for each try of the transaction

    def _turns(self, seen: Snapshot, count: int) -> Iterator[Lane]:
        """Yield the lanes of `count` images as the policy gives them one after the other; then all others in their
        order, so often each, for what those are short of.
        """
        given, asked = Counter[str](), Counter[Lane]()
        for _ in range(count):
            ranked = self._ranked(seen.after(given))
            lane = next((lane for lane in ranked if asked[lane] < lane.queued), None)
            if lane is None:
                break
            yield lane
            asked[lane] += 1
            given[lane.owner] += lane.cost
        for lane in self._ranked(seen):
            if lane not in asked:
                yield from repeat(lane, count)

    def _avoid(self, what: _Avoided) -> None:
        now = time.monotonic()
        with self._lock:
            still = {avoided: until for avoided, until in self._avoided.items() if until > now}
            self._avoided = still | {what: now + _AVOIDED_SECONDS}

    def _ranked(self, seen: Snapshot) -> Iterator[Lane]:
        ranked = policy.rank(seen.ordered, seen.farm, self._worker.as_policy_sees_it())
        return (lane for lane in ranked if not self._is_avoided(lane))

    def _is_avoided(self, lane: Lane) -> bool:
        now, avoided = time.monotonic(), self._avoided
        of_lane = ((lane.checkpoint, None), (lane.checkpoint, lane.owner), lane.place)
        return bool(avoided) and any(avoided.get(what, now) > now for what in of_lane)


def _least(lanes: Iterable[Lane]) -> dict[tuple[str, str], Lane]:
    """Return for each (pool, checkpoint) the lane that needs the least memory."""
    return {(lane.pool, lane.checkpoint): lane for lane in sorted(lanes, key=lambda lane: -(lane.needs or 0))}
