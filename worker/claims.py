"""Which image is next for this worker: the policy over a snapshot, then one claim."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Final

import structlog
from pydantic import ValidationError

from shared.database import transact
from shared.queue import policy, snapshot
from shared.queue.claim import Claim, claim
from shared.queue.policy import Farm, Lane
from shared.queue.snapshot import Snapshot
from worker.worker import Worker

log = structlog.get_logger(__name__)

_AVOIDED_SECONDS: Final = 30.0


class Claims:
    """The claims of one worker, whose own latest ones are added to what a shared snapshot knows."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._lock = Lock()
        self._taken_at = 0.0
        self._since: list[Claim] = []  # claimed here after the snapshot was taken
        self._avoided: dict[str | Lane, float] = {}  # checkpoint or lane -> monotonic time until which others have it

    def next(self) -> Claim | None:
        """Claim an image; asks for a snapshot taken now before it says that there is none. Raises Unavailable."""
        return self._claim(snapshot.MAX_AGE_SECONDS) or self._claim(0.0)

    def has_some(self) -> bool:
        """True if something waits that the policy gives to this worker now. Raises Unavailable."""
        return bool(self._ranked(self._snapshot(snapshot.MAX_AGE_SECONDS)))

    def avoid(self, checkpoint: str) -> None:
        """Leave images of `checkpoint` to others for a while: it is not on this machine."""
        self._avoid(checkpoint)

    def better_worker(self) -> int | None:
        """Return a worker with room to which the policy leaves a lane that is not for this one now."""
        seen = self._snapshot(snapshot.MAX_AGE_SECONDS)
        me = self._worker.as_policy_sees_it()
        mine = self._ranked(seen)
        left = {lane.checkpoint for lane in seen.lanes if lane.pool == me.pool and lane not in mine}
        others = [
            other
            for other in seen.farm.workers
            if other.id != me.id and other.pool == me.pool and other.has_room and left & other.resident
        ]
        return max(others, key=lambda other: other.free_slots).id if others else None

    def _claim(self, max_age: float) -> Claim | None:
        lanes = self._ranked(self._snapshot(max_age))
        if not lanes:
            return None
        taken = self._take(lanes)
        if taken is not None:
            with self._lock:
                self._since.append(taken)
        return taken

    def _take(self, lanes: Sequence[Lane]) -> Claim | None:
        """Claim from the first lane that has an image which this version of the farm understands."""
        me = self._worker.as_policy_sees_it()
        try:
            return transact(self._worker.sessions, lambda session: claim(session, me, lanes))
        except ValidationError as error:
            if len(lanes) > 1:
                return next(filter(None, (self._take([lane]) for lane in lanes)), None)
            log.warning("job not understood: left to others", worker=me.id, lane=lanes[0], reason=str(error))
            self._avoid(_whatever_its_head(lanes[0]))
            return None

    def _avoid(self, what: str | Lane) -> None:
        now = time.monotonic()
        with self._lock:
            still = {avoided: until for avoided, until in self._avoided.items() if until > now}
            self._avoided = still | {what: now + _AVOIDED_SECONDS}

    def _snapshot(self, max_age: float) -> Snapshot:
        seen = snapshot.current(self._worker.sessions, self._worker.redis, max_age=max_age)
        with self._lock:
            if seen.taken_at != self._taken_at:
                self._taken_at, self._since = seen.taken_at, []
        return seen

    def _ranked(self, seen: Snapshot) -> list[Lane]:
        lanes = [lane for lane in seen.lanes if not self._is_avoided(lane)]
        return policy.rank(lanes, self._farm(seen.farm), self._worker.as_policy_sees_it())

    def _is_avoided(self, lane: Lane) -> bool:
        now, avoided = time.monotonic(), self._avoided
        return any(avoided.get(what, now) > now for what in (lane.checkpoint, _whatever_its_head(lane)))

    def _farm(self, farm: Farm) -> Farm:
        with self._lock:
            since = tuple(self._since)
        for taken in since:
            farm = farm.after(taken.owner, taken.cost)
        return farm


def _whatever_its_head(lane: Lane) -> Lane:
    return replace(lane, head=0, queued_at=0.0)
