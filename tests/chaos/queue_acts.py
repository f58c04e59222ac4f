"""Acts on the queue: each can do itself to the database, and to the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, cycle, islice
from typing import Any

from sqlalchemy.orm import Session

from shared.accounts.scope import EVERYBODYS
from shared.db.states import WorkerState
from shared.errors import Conflict, NotFound
from shared.queue import claim as claims
from shared.queue import deadlines, holds, policy, reaper, transitions, workers
from shared.queue.claim import Claim
from shared.queue.transitions import Finish, Stored
from tests.chaos.queue_model import CANCELLED, FAILED, HELD, QUEUED, RUNNING, SUCCEEDED, Model

Refusal = type[Conflict] | type[NotFound]
MOMENT = 0.001  # a lease: the database has been up for longer


@dataclass(frozen=True)
class Seen:
    """What an act answered in the database, and what another act beside it may have kept from it (SKIP LOCKED)."""

    answer: Any
    images: frozenset[int] = frozenset()
    workers: frozenset[int] = frozenset()


class Act:
    """One move. `play` changes the model and returns the answer that the database should give."""

    is_bulk = False  # of a pair of these each image may have been moved in either order

    def run(self, session: Session) -> Any:
        raise NotImplementedError

    def play(self, model: Model, seen: Seen) -> Any:
        raise NotImplementedError

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        """Return the images and workers that it may lock."""
        return frozenset(), frozenset()


@dataclass(frozen=True)
class Take(Act):
    """A worker claims of one lane."""

    worker: int
    lane: policy.Lane

    def run(self, session: Session) -> Claim | None:
        return next(iter(claims.claim(session, policy.Worker(self.worker, (self.lane.pool,)), [self.lane])), None)

    def play(self, model: Model, seen: Seen) -> Claim | str | None:
        able = model.claimable(self.lane.owner, self.worker)
        taken = seen.answer and seen.answer.image_id
        ahead = able[: able.index(taken)] if taken in able else able
        if not seen.images.issuperset(ahead) or (taken and taken not in able):
            return f"the first of {able}"
        if taken is None:
            return None
        picture = model.pictures[taken]
        picture.state, picture.worker, picture.has_started = RUNNING, self.worker, True
        picture.attempt += 1
        return seen.answer if seen.answer.attempt == picture.attempt else f"attempt {picture.attempt}"

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(model.claimable(self.lane.owner, self.worker)[:1]), frozenset({self.worker})


@dataclass(frozen=True)
class TakeSome(Act):
    """A worker claims for several slots at once, of each lane in turn."""

    worker: int
    lanes: tuple[policy.Lane, ...]
    count: int

    def run(self, session: Session) -> list[Claim]:
        me = policy.Worker(self.worker, (self.lanes[0].pool,))
        return claims.claim(session, me, self._turns())

    def play(self, model: Model, seen: Seen) -> list[Claim] | str:
        taken = {ours.image_id: ours.attempt for ours in seen.answer}
        kept = seen.images.difference(taken)
        struck = frozenset(number for number in kept & model.pictures.keys() if model.pictures[number].strikes)
        given = [self._given(model, kept - free) for free in subsets(struck)]  # what is free and not struck is taken
        if set(taken) not in given:
            return f"one of {given}"
        for number in taken:
            picture = model.pictures[number]
            picture.state, picture.worker, picture.has_started = RUNNING, self.worker, True
            picture.attempt += 1
        attempts = {number: model.pictures[number].attempt for number in taken}
        return seen.answer if taken == attempts else f"attempts {attempts}"

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        owners = {lane.owner for lane in self._turns()}
        images = {number for owner in owners for number in model.claimable(owner, self.worker)[: self.count]}
        return frozenset(images), frozenset({self.worker})

    def _given(self, model: Model, locked: frozenset[int]) -> set[int]:
        """Return what the claim gives where another act holds `locked`: of the heads one that is struck at most."""
        heads: list[int] = []
        for owner, count in Counter(lane.owner for lane in self._turns()).items():
            heads += [number for number in model.claimable(owner, self.worker) if number not in locked][:count]
        struck = sorted(number for number in heads if model.pictures[number].strikes)
        return set(heads) - set(struck[1:])

    def _turns(self) -> list[policy.Lane]:
        return list(islice(cycle(self.lanes), self.count))


def subsets(numbers: Iterable[int]) -> Iterator[frozenset[int]]:
    """Yield every choice of `numbers`: what another act may lock it need not have locked yet."""
    known = list(numbers)
    return (frozenset(some) for size in range(len(known) + 1) for some in combinations(known, size))


@dataclass(frozen=True)
class End(Act):
    """A slot commits what it carried, perhaps for the second time, perhaps when it is no longer its own."""

    claim: Claim
    fails: bool

    def run(self, session: Session) -> Finish:
        if self.fails:
            return transitions.fail(session, self.claim, "broken").finish
        return transitions.finish(session, self.claim, 1).finish

    def play(self, model: Model, seen: Seen) -> Finish:
        state = FAILED if self.fails else SUCCEEDED
        picture = model.pictures.get(self.claim.image_id)
        if picture is None or picture.attempt != self.claim.attempt:
            return Finish.REFUSED
        if picture.worker == self.claim.worker_id:
            picture.end(state)
            return Finish.COMMITTED
        return Finish.ALREADY_MINE if picture.state == state else Finish.REFUSED

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset({self.claim.image_id}), frozenset()


@dataclass(frozen=True)
class EndSome(Act):
    """Several slots of a worker commit their pictures at once, some of them perhaps no longer their own."""

    claims: tuple[Claim, ...]

    def run(self, session: Session) -> list[Finish]:
        return [ended.finish for ended in transitions.finish_all(session, [Stored(ours, 1) for ours in self.claims])]

    def play(self, model: Model, seen: Seen) -> list[Finish]:
        return [End(ours, fails=False).play(model, seen) for ours in self.claims]

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(ours.image_id for ours in self.claims), frozenset()


@dataclass(frozen=True)
class HandBack(Act):
    """A worker queues what it will not finish."""

    claim: Claim

    def run(self, session: Session) -> int:
        return transitions.hand_back(session, self.claim.worker_id, {self.claim.image_id: self.claim.attempt})

    def play(self, model: Model, seen: Seen) -> int:
        picture = model.pictures.get(self.claim.image_id)
        if picture is None or (picture.attempt, picture.worker) != (self.claim.attempt, self.claim.worker_id):
            return 0
        picture.give_back()
        return 1

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset({self.claim.image_id}), frozenset()


@dataclass(frozen=True)
class OfJob(Act):
    """Cancel, retry, hold or release a job; the first two perhaps one image of it."""

    move: str
    job: int
    index: int | None = None
    is_bulk = True

    def run(self, session: Session) -> int | transitions.Cancelled:
        if self.move in {"hold", "release"}:
            images: int = getattr(holds, self.move)(session, EVERYBODYS, self.job, by="ann")
            return images
        answer: int | transitions.Cancelled = getattr(transitions, self.move)(session, EVERYBODYS, self.job, self.index)
        return answer

    def play(self, model: Model, seen: Seen) -> int | transitions.Cancelled | Refusal:
        whole = model.of_job(self.job, self.index)
        moved = {number: one for number, one in whole.items() if one.state in _MOVED[self.move]}
        if not moved:
            return Conflict if whole else NotFound
        running = {number: one.attempt for number, one in moved.items() if one.state == RUNNING}
        for picture in moved.values():
            if self.move == "cancel":
                picture.end(CANCELLED)
            elif self.move == "hold":
                picture.state = HELD
            else:
                picture.queue()
            if self.move == "retry":
                picture.strikes, picture.expires = 0, None if picture.expires == "past" else picture.expires
        return transitions.Cancelled(len(moved), running) if self.move == "cancel" else len(moved)

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(model.of_job(self.job, self.index)), frozenset()


_MOVED = {
    "cancel": {HELD, QUEUED, RUNNING},
    "retry": {FAILED, CANCELLED},
    "hold": {QUEUED},
    "release": {HELD},
}


@dataclass(frozen=True)
class Delete(Act):
    """A person removes a job."""

    job: int
    is_bulk = True

    def run(self, session: Session) -> None:
        transitions.delete(session, EVERYBODYS, self.job)

    def play(self, model: Model, seen: Seen) -> Refusal | None:
        whole = model.of_job(self.job)
        if any(picture.state == RUNNING for picture in whole.values()):
            return Conflict
        if self.job not in model.jobs:
            return NotFound
        model.jobs.remove(self.job)
        for number in whole:
            del model.pictures[number]
        return None

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(model.of_job(self.job)), frozenset()


@dataclass(frozen=True)
class Remove(Act):
    """A worker leaves, or is declared dead."""

    worker: int
    strike: bool = False
    leaves: bool = False

    def run(self, session: Session) -> int:
        if self.leaves:
            return reaper.leave(session, self.worker)
        return reaper.mark_dead(session, self.worker, reason="it crashed", crashed=self.strike)

    def play(self, model: Model, seen: Seen) -> int:
        return model.give_back({self.worker} & model.workers.keys(), strike=int(self.strike))

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(model.of_worker(self.worker)), frozenset({self.worker})


@dataclass(frozen=True)
class Reap(Act):
    """Somebody declares dead the workers that are past their lease."""

    me_on_time: bool

    def run(self, session: Session) -> list[int]:
        return reaper.reap(session, me_on_time=self.me_on_time, lease_seconds=MOMENT)

    def play(self, model: Model, seen: Seen) -> list[int]:
        late = [worker for worker, is_late in sorted(model.workers.items()) if is_late and self.me_on_time]
        spared = set(late) - set(seen.answer)
        dead = [worker for worker in late if worker not in spared or worker not in seen.workers]
        model.give_back(dead)
        return dead

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        late = {worker for worker, is_late in model.workers.items() if is_late}
        return frozenset().union(*(model.of_worker(worker) for worker in late)), frozenset(late)


@dataclass(frozen=True)
class Pulse(Act):
    """A worker beats, and says what it runs."""

    worker: int
    running: Mapping[int, int] = field(default_factory=dict)

    def run(self, session: Session) -> workers.Heartbeat | None:
        said = {"state": WorkerState.READY, "phase": "", "resident": [], "load_seconds": None, "lease_seconds": 3600}
        return workers.heartbeat(session, self.worker, running=self.running, **said)

    def play(self, model: Model, seen: Seen) -> workers.Heartbeat | None:
        if self.worker not in model.workers:
            return None
        model.workers[self.worker] = False
        recorded = {number: picture.attempt for number, picture in model.of_worker(self.worker).items()}
        return workers.Heartbeat(
            drop=tuple(number for number, attempt in self.running.items() if recorded.get(number) != attempt),
            missing={number: attempt for number, attempt in recorded.items() if self.running.get(number) != attempt},
        )

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(), frozenset({self.worker})


@dataclass(frozen=True)
class Turn(Act):
    """Somebody does what is due."""

    is_bulk = True

    def run(self, session: Session) -> tuple[int, int]:
        done = deadlines.move_due(session)
        return done.cancelled, sum(done.queued.values())

    def play(self, model: Model, seen: Seen) -> tuple[int, int]:
        return model.settle()

    def touches(self, model: Model) -> tuple[frozenset[int], frozenset[int]]:
        return frozenset(model.pictures), frozenset()
