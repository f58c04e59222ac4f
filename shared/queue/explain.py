"""Why an image waits, in words: computed from the policy whenever somebody asks, and never stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice, takewhile
from typing import Final, NamedTuple

from shared.db.states import WorkerState
from shared.params.pools import DEFAULT_POOL
from shared.quantities import counted, data_size, estimate
from shared.queue import policy
from shared.queue.estimates import Estimate, Struck, off_by, seconds_one_by_one, seconds_until_start
from shared.queue.missing_files import MissingFile
from shared.queue.policy import Farm, Lane, Lanes, Worker
from shared.queue.snapshot import Snapshot

_WORKERS: Final = 8  # whose next choices are computed: those that may take the image first
_LANES: Final = 500  # of each worker's choices
_NAMED: Final = 3  # workers that a sentence names


class Cause(StrEnum):
    """What an image waits for, as programs read it."""

    HELD = "held"  # until its reason is over
    NO_WORKER = "no_worker"  # no worker of its pool is alive
    MEMORY = "memory"  # it needs more than any worker alive has
    NEWER_VERSION = "newer_version"  # no worker alive understands all that its job asks for
    NO_CHECKPOINT = "no_checkpoint"  # its file lies on no machine, or cannot be used
    NO_MODEL = "no_model"  # the same of another model file: an adapter, a control net, an upscaler
    REDIS = "redis"  # Redis stores nothing, so no ticket brings an image to a worker
    STARTING = "starting"  # every worker that could render it is coming up
    DRAINED = "drained"  # every worker that could render it takes nothing new
    LEFT_ALONE = "left_alone"  # those with room leave it, for a while, to one that has its checkpoint
    STRUCK = "struck"  # a worker died of it: each worker runs one such image at a time
    OWN_LIMIT = "own_limit"  # as many images of its owner run as may run at once
    OWN_IMAGES = "own_images"  # other images of its owner are first
    OTHER_OWNERS = "other_owners"  # it is their turn, or their images are urgent
    SLOT = "slot"  # it is next, and no slot is free
    NEXT = "next"  # a worker has room and takes it with its next ticket


_ESTIMATED: Final = frozenset({Cause.LEFT_ALONE, Cause.STRUCK, Cause.OWN_IMAGES, Cause.OTHER_OWNERS, Cause.SLOT})
"""Causes that end by themselves, in a time that can be estimated."""


@dataclass(frozen=True)
class Waiter:
    """An image that waits, as the database has it."""

    index: int
    lane: Lane  # of this image alone: as if it were the head
    held: str | None = None  # why it is held; None: it is not
    ahead: int = 0  # images of its owner that stand before it
    ahead_cost: int = 0  # work of those that were counted
    is_far: bool = False  # more stand before it than were counted
    missing: Sequence[MissingFile] = ()  # model files that cannot be loaded anywhere
    unread: Mapping[str, str] = field(default_factory=dict)  # worker -> what it does not know of the job
    struck: Struck | None = None  # None: no worker died of it


@dataclass(frozen=True)
class RecentWork:
    """What the farm did lately, from which its next minutes are estimated."""

    rates: Mapping[str, float] = field(default_factory=dict)  # worker -> work a second while it renders
    paces: Mapping[str, float] = field(default_factory=dict)  # worker -> seconds for a unit of one image's work
    error: float | None = None  # share by which estimates were off, the median
    drains: Mapping[str, str] = field(default_factory=dict)  # worker -> why it takes nothing new


@dataclass(frozen=True)
class Waiting:
    """Why one image waits, and for about how long."""

    index: int
    cause: Cause
    text: str
    position: int | None  # images of its owner that stand before it; None while it is held
    estimate_seconds: float | None  # until it starts; None: not known
    estimate_error: float | None  # share by which such estimates were off lately
    missing: Sequence[MissingFile] = ()  # model files that cannot be loaded anywhere


class _Reason(NamedTuple):
    cause: Cause
    text: str
    at_most: float | None = None  # seconds after which it starts at the latest


def explain(waiter: Waiter, snapshot: Snapshot, recent: RecentWork, redis: str | None = None) -> Waiting:
    """Return why `waiter` waits, by the functions that decide what the workers take.

    `redis` says why Redis stores nothing; None: it does.
    """
    if waiter.held is not None:
        reason = _Reason(Cause.HELD, f"It is {waiter.held}.")
    else:
        without_redis = _Reason(Cause.REDIS, f"{redis}.") if redis else None
        reason = _nobody(waiter, snapshot.farm, recent) or without_redis or _not_yet(waiter, snapshot)
    seconds = _estimate(waiter, snapshot, recent, reason)
    error = None if seconds is None else recent.error
    return Waiting(
        index=waiter.index,
        cause=reason.cause,
        text=f"{reason.text}{_estimate_words(waiter, reason.cause, seconds, error)}",
        position=None if reason.cause == Cause.HELD else waiter.ahead,
        estimate_seconds=None if seconds is None else round(seconds, 1),
        estimate_error=None if error is None else round(error, 2),
        missing=tuple(waiter.missing),
    )


def _nobody(waiter: Waiter, farm: Farm, recent: RecentWork) -> _Reason | None:
    """Return why no worker could take it even if the farm had nothing else to do; None: one could."""
    pool = waiter.lane.pool
    of_pool = "" if pool == DEFAULT_POOL else f" of the pool {pool}"
    alive = [worker for worker in farm.workers if pool in worker.pools]
    if not alive:
        return _Reason(Cause.NO_WORKER, f"No worker{of_pool} is alive.")
    if waiter.missing:
        is_checkpoint = any(one.kind == "checkpoint" for one in waiter.missing)
        return _Reason(Cause.NO_CHECKPOINT if is_checkpoint else Cause.NO_MODEL, _missing_words(waiter.missing))
    able = [worker for worker in alive if policy.fits(waiter.lane, worker)]
    if not able:
        return _Reason(Cause.MEMORY, _memory_words(waiter.lane, alive, of_pool))
    readers = [worker for worker in able if worker.name not in waiter.unread]
    if readers:
        return _none_ready(readers, recent)
    unread = dict.fromkeys(waiter.unread[worker.name] for worker in able)
    does = "does" if len(able) == 1 else "do"
    words = f"It needs a worker of a newer version: {_names(able)} {does} not know {'; '.join(unread)}."
    return _Reason(Cause.NEWER_VERSION, words)


def _missing_words(missing: Sequence[MissingFile]) -> str:
    """Return what is wrong with the files that are missing, and what to do; the first of many."""
    more = len(missing) - _NAMED
    rest = f" {counted(more, 'more model file')} {'is' if more == 1 else 'are'} missing." if more > 0 else ""
    return " ".join(one.words for one in missing[:_NAMED]) + rest


def _memory_words(lane: Lane, alive: Sequence[Worker], of_pool: str) -> str:
    """Return what the image needs on the worker that lacks the least memory for it, and what that worker has."""
    nearest = min(alive, key=lambda worker: (lane.need(worker.precision) or 0) - (worker.memory_bytes or 0))
    need, has = data_size(lane.need(nearest.precision) or 0), data_size(nearest.memory_bytes or 0)
    needs = f"It needs a card with about {need} of memory in {nearest.precision} precision"
    return f"{needs}, and the largest of a living worker{of_pool} with that precision has {has}."


def _none_ready(able: Sequence[Worker], recent: RecentWork) -> _Reason | None:
    """Return why these workers take no images; None: one does."""
    states = {worker.state for worker in able}
    if WorkerState.READY in states:
        return None
    if WorkerState.STARTING in states:
        starting = [worker for worker in able if worker.state == WorkerState.STARTING]
        return _Reason(Cause.STARTING, f"{_names(starting)} {_are(starting)} still starting.")
    why = next((f": {recent.drains[worker.name]}" for worker in able if worker.name in recent.drains), "")
    return _Reason(Cause.DRAINED, f"{_names(able)} {'takes' if len(able) == 1 else 'take'} nothing new{why}.")


def _not_yet(waiter: Waiter, snapshot: Snapshot) -> _Reason:
    """Return why the workers that can take it have not done so."""
    lane, farm = waiter.lane, snapshot.farm
    ready = _able(waiter, farm)
    with_room = [worker for worker in ready if worker.has_room and not _is_at_its_like(worker, waiter)]
    if kept_back := _at_the_limit(lane, farm) or _left_alone(lane, farm, with_room) or _one_by_one(waiter, ready):
        return kept_back
    if waiter.ahead:
        more = "More than " if waiter.is_far else ""
        images = counted(waiter.ahead, "image")
        return _Reason(
            Cause.OWN_IMAGES, f"{more}{images} of the same owner {'go' if waiter.ahead > 1 else 'goes'} first."
        )
    if others := _owners_before(lane, snapshot, ready):
        return _Reason(Cause.OTHER_OWNERS, _turn_words(others, is_urgent=lane.urgent))
    if with_room:
        has = "has" if len(with_room) == 1 else "have"
        return _Reason(Cause.NEXT, f"It is next: {_names(with_room)} {has} room for it.")
    who = f"{_names(ready)} {_are(ready)} full" if len(ready) <= _NAMED else f"all {len(ready)} workers are full"
    return _Reason(Cause.SLOT, f"It is next, and waits for a slot: {who}.")


def _at_the_limit(lane: Lane, farm: Farm) -> _Reason | None:
    """Return that as many images of its owner run as may run at once; None: not so."""
    owner = farm.owner(lane.owner)
    if owner.most is None or not owner.is_full:
        return None
    running = counted(owner.images, "image")
    words = f"Its owner has {running} running, and no more than {owner.most:,} may run at once."
    return _Reason(Cause.OWN_LIMIT, words)


def _one_by_one(waiter: Waiter, ready: Sequence[Worker]) -> _Reason | None:
    """Return that it waits for other images that a worker died of; None: not so. Each worker runs one at a time."""
    if waiter.struck is None:
        return None
    why = "A worker died while it rendered this image, and each worker renders one such image at a time"
    if ahead := waiter.struck.ahead:
        return _Reason(Cause.STRUCK, f"{why}: {ahead:,} of the same owner {'goes' if ahead == 1 else 'go'} first.")
    busy = [worker for worker in ready if _is_at_its_like(worker, waiter)]
    if len(busy) < len(ready):
        return None
    return _Reason(Cause.STRUCK, f"{why}: {_names(busy)} {_are(busy)} at another one.")


def _is_at_its_like(worker: Worker, waiter: Waiter) -> bool:
    """Return whether a worker renders another image that a worker died of."""
    return waiter.struck is not None and worker.name in waiter.struck.running


def _left_alone(lane: Lane, farm: Farm, with_room: Sequence[Worker]) -> _Reason | None:
    leaving = [worker for worker in with_room if policy.is_left_alone(lane, farm, worker)]
    if not leaving:
        return None
    homes = [worker for worker in with_room if lane.checkpoint in worker.resident]  # with the memory for it
    left = max(0.0, min(worker.affinity_seconds for worker in leaving) - (farm.now - lane.queued_at))
    text = f"Its checkpoint is loaded on {_names(homes)}: others leave it alone for at most {left:.0f} s more."
    return _Reason(Cause.LEFT_ALONE, text, left)


def _turn_words(others: Mapping[str, bool], *, is_urgent: bool) -> str:
    """Return why these owners are served first; True: their images are urgent."""
    urgent = 0 if is_urgent else sum(others.values())
    if urgent:
        also = f", and it is the turn of {_owners(len(others) - urgent)}" if len(others) > urgent else ""
        return f"Urgent images of {_owners(urgent)} go first{also}."
    among = " of those with urgent images" if is_urgent else ""
    return f"It is the turn of {_owners(len(others))} first: all{among} have their share."


def _owners(number: int) -> str:
    return "another owner" if number == 1 else f"{number} other owners"


def _owners_before(lane: Lane, snapshot: Snapshot, ready: Sequence[Worker]) -> dict[str, bool]:
    """Return the other owners that the worker nearest to this lane would serve first; True: their images are urgent."""
    is_known = any(_is_same(lane, other) for other in snapshot.ordered.all_of(lane.pool))
    lanes = snapshot.ordered if is_known else Lanes([*snapshot.lanes, lane])  # it may be newer than the snapshot
    likeliest = sorted(ready, key=lambda one: (lane.checkpoint not in one.resident, not one.has_room, one.id))
    return min((_owners_ranked_before(lane, lanes, snapshot.farm, worker) for worker in likeliest[:_WORKERS]), key=len)


def _owners_ranked_before(lane: Lane, lanes: Lanes, farm: Farm, worker: Worker) -> dict[str, bool]:
    ranked = islice(policy.rank(lanes, farm, worker), _LANES)
    before = takewhile(lambda other: not _is_same(lane, other), ranked)
    owners: dict[str, bool] = {}
    for other in before:  # urgent lanes come first
        if other.owner != lane.owner:
            owners.setdefault(other.owner, other.urgent)
    return owners


def _is_same(lane: Lane, other: Lane) -> bool:
    """Return whether both describe one lane, and its head is urgent in both or in neither."""
    return (other.place, other.urgent) == (lane.place, lane.urgent)


def _able(waiter: Waiter, farm: Farm) -> list[Worker]:
    """Return the ready workers that could render the image."""
    lane = waiter.lane
    in_pool = [one for one in farm.workers if lane.pool in one.pools and one.state == WorkerState.READY]
    return [one for one in in_pool if policy.fits(lane, one) and one.name not in waiter.unread]


def _estimate(waiter: Waiter, snapshot: Snapshot, recent: RecentWork, reason: _Reason) -> float | None:
    """Return the seconds until it starts, or None."""
    if reason.cause == Cause.NEXT:
        return 0.0
    if waiter.is_far or reason.cause not in _ESTIMATED:
        return None
    ready = _able(waiter, snapshot.farm)
    seconds = seconds_until_start(Estimate(waiter.lane, waiter.ahead_cost), snapshot, ready, recent.rates)
    if waiter.struck is not None and seconds is not None:
        seconds = max(seconds, seconds_one_by_one(waiter.struck, ready, waiter.lane.cost, recent.paces) or 0.0)
    if reason.at_most is None or waiter.ahead:
        return seconds
    return reason.at_most if seconds is None else min(seconds, reason.at_most)


def _estimate_words(waiter: Waiter, cause: Cause, seconds: float | None, error: float | None) -> str:
    if seconds is None:
        tells = cause in _ESTIMATED - {Cause.LEFT_ALONE} and not waiter.is_far
        return " Nothing was rendered lately that an estimate could come from." if tells else ""
    if cause == Cause.NEXT:
        return ""
    return f" It should start in {estimate(seconds)}{f' (lately {off_by(error)})' if error is not None else ''}."


def _names(workers: Sequence[Worker]) -> str:
    names = [worker.name or f"worker {worker.id}" for worker in workers]
    if len(names) > _NAMED:
        names = [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _are(workers: Sequence[Worker]) -> str:
    return "is" if len(workers) == 1 else "are"
