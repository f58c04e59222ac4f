"""Plans of trouble: what happens to a farm and when, all of it drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.points import POINTS

SECONDS = 3.0
"""How long a plan makes trouble; then everything is mended and the farm has to end what it has."""

OUTAGE_SECONDS = 20.0
"""For how long, at the least, the storage is away in two plans of five, past all leases and waits."""

STOP_SECONDS = 3.5
"""For how long, at the most, a process is stopped."""

OWNERS = ("ann", "bob", "eve")


class Kind(StrEnum):
    """The kinds of actions; `target` and `seconds` of the action are its process and its duration."""

    SUBMIT = "submit"  # a job of `number` images for owner `target`
    CANCEL = "cancel"  # one image, or all, of the job that came as `number`
    RETRY = "retry"
    KILL = "kill"  # -9: a worker, a supervisor, the API
    STOP = "stop"  # SIGSTOP, and SIGCONT after `seconds`
    CRASH = "crash"  # the next process that passes the crash point `target` is killed there
    EMPTY_REDIS = "kill Redis, start it empty"
    KEEP_REDIS = "kill Redis, start it with its data"
    FREEZE_REDIS = "stop Redis"
    KILL_POSTGRES = "kill PostgreSQL"  # it starts again after `seconds`
    KILL_BACKEND = "kill a backend of PostgreSQL"  # which then ends all others and recovers
    CUT = "cut"  # the way of `target` to a server: connections are reset, new ones refused
    HUSH = "hush"  # the same way: connections stay, nothing comes through
    FILL = "fill the storage"
    LOCK_STORAGE = "make the storage read-only"
    UNMOUNT_STORAGE = "unmount the storage"  # an empty folder lies in its place
    LOSE_STORAGE = "take the storage away"  # and none does
    KILL_RECEIVER = "kill the receiver of webhooks"  # nobody listens
    HUSH_RECEIVER = "hush the receiver of webhooks"  # it takes messages and does not answer
    FAIL_RECEIVER = "have the receiver of webhooks answer 500"


@dataclass(frozen=True, order=True)
class Action:
    """One thing that happens, `at` seconds after all workers were ready."""

    at: float
    kind: Kind
    target: str = ""
    seconds: float = 0.0
    number: int = 0

    def __str__(self) -> str:
        told = [f"{self.at:5.2f} s", self.kind, self.target]
        told += [f"number {self.number}"] if self.number else []
        told += [f"for {self.seconds} s"] if self.seconds else []
        return "  ".join(word for word in told if word)


@dataclass(frozen=True)
class Plan:
    """What one farm goes through: `supervised` workers under one supervisor, `alone` ones under none."""

    seed: int
    supervised: int
    alone: int
    point: str  # the crash point that has to be hit before the plan ends
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        head = f"seed {self.seed}: {self.supervised} supervised workers, {self.alone} alone, crash point {self.point}"
        return "\n".join([head, *(f"  {action}" for action in self.actions)])


RECEIVER_TROUBLES = (Kind.KILL_RECEIVER, Kind.HUSH_RECEIVER, Kind.FAIL_RECEIVER)
DATABASE_TROUBLES = (Kind.KILL_POSTGRES, Kind.KILL_BACKEND)
STORAGE_OUTAGES = (Kind.FILL, Kind.LOCK_STORAGE, Kind.UNMOUNT_STORAGE, Kind.LOSE_STORAGE)


def make(seed: int, outage_seconds: float = OUTAGE_SECONDS) -> Plan:
    """Return the plan of `seed`: the same one each time. Seeds in a row go through all crash points, and two in five
    have a storage outage of `outage_seconds` or some more, one of them with PostgreSQL away for a part of it.
    """
    return _Maker(seed).plan(outage_seconds)


class _Maker:
    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seed = seed
        self._supervised, self._alone = self._chance.choice([(1, 1), (1, 1), (1, 2), (2, 1)])
        self._workers = supervised(self._supervised) + alone(self._alone)

    def plan(self, outage_seconds: float) -> Plan:
        rounds, number = divmod(self._seed, len(POINTS))
        point = POINTS[number]
        actions = [*self._people(), *self._provoked(point), *(self._trouble() for _ in range(5))]
        actions.append(Action(self._at(), self._chance.choice(RECEIVER_TROUBLES), seconds=self._seconds(0.5, 4)))
        if (rounds + number) % 5 < 2:  # in time of each crash point's plans
            actions += self._outage(outage_seconds, with_database=(rounds + number) % 5 == 0)
        return Plan(self._seed, self._supervised, self._alone, point, tuple(sorted(actions)))

    def _people(self) -> list[Action]:
        chance = self._chance
        first = [Action(0.0, Kind.SUBMIT, owner, number=chance.randint(4, 10)) for owner in OWNERS]
        later = [Action(self._at(), Kind.SUBMIT, chance.choice(OWNERS), number=chance.randint(1, 8)) for _ in range(3)]
        moves = [Action(self._at(), kind, number=chance.randrange(6)) for kind in (Kind.CANCEL, Kind.RETRY) * 2]
        return first + later + moves

    def _provoked(self, point: str) -> list[Action]:
        """Return what makes a process die at `point`: a declaration of death needs a dead process."""
        crash = [Action(0.0, Kind.CRASH, point)]
        if point.startswith("mark_dead"):
            return [*crash, Action(self._at(), Kind.KILL, self._chance.choice(supervised(self._supervised)))]
        if point.startswith("reap"):
            return [*crash, Action(self._at(), Kind.KILL, self._chance.choice(alone(self._alone)))]
        return crash

    def _outage(self, seconds: float, *, with_database: bool) -> list[Action]:
        """Return a storage outage that is longer than whatever a worker would sit out; PostgreSQL may be away in it."""
        kind = self._chance.choice(STORAGE_OUTAGES)
        storage = Action(self._at(), kind, seconds=round(seconds * self._chance.uniform(1, 1.2), 2))
        database = Action(round(storage.at + 0.5, 2), Kind.KILL_POSTGRES, seconds=2.0)
        return [storage, database] if with_database else [storage]

    def _trouble(self) -> Action:
        chance, at = self._chance, self._at()
        kinds = list(_WEIGHTS)
        [kind] = chance.choices(kinds, [_WEIGHTS[kind] for kind in kinds])
        match kind:
            case Kind.KILL:
                return Action(at, kind, chance.choice([*self._workers * 2, SUPERVISOR, API]))
            case Kind.STOP:
                target = chance.choice([*self._workers * 2, SUPERVISOR, API])
                return Action(at, kind, target, self._seconds(0.3, STOP_SECONDS))
            case Kind.CRASH:
                return Action(at, kind, chance.choice(POINTS))
            case Kind.CUT | Kind.HUSH:
                party = chance.choice([*alone(self._alone), SUPERVISOR, API, EVERYBODY])
                server = chance.choice(["postgres", "redis"])
                return Action(at, kind, f"{party} from {server}", self._seconds(0.1, 2.5))
            case Kind.KILL_BACKEND | Kind.KEEP_REDIS | Kind.EMPTY_REDIS | Kind.KILL_POSTGRES:
                return Action(at, kind, seconds=0.0 if kind == Kind.KILL_BACKEND else self._seconds(0, 2))
        return Action(at, kind, seconds=self._seconds(0.3, 2.5))

    def _at(self) -> float:
        return round(self._chance.uniform(0.1, SECONDS), 2)

    def _seconds(self, low: float, high: float) -> float:
        return round(self._chance.uniform(low, high), 2)


SUPERVISOR = "supervisor"
API = "API"
EVERYBODY = "everybody"

_WEIGHTS = {
    Kind.KILL: 6,
    Kind.STOP: 3,
    Kind.CRASH: 3,
    Kind.CUT: 3,
    Kind.HUSH: 2,
    Kind.EMPTY_REDIS: 1,
    Kind.KEEP_REDIS: 1,
    Kind.FREEZE_REDIS: 1,
    Kind.KILL_POSTGRES: 1,
    Kind.KILL_BACKEND: 1,
    Kind.FILL: 1,
    Kind.LOCK_STORAGE: 1,
    Kind.UNMOUNT_STORAGE: 1,
    Kind.LOSE_STORAGE: 1,
}


def keeps_messages(action: Action) -> bool:
    """True of trouble for those that a webhook needs: its receiver, the database, and the process that sends it.

    The death of that process is noted when it is found dead.
    """
    if action.kind in {Kind.CUT, Kind.HUSH}:
        return action.target in {f"{SENDER} from postgres", f"{EVERYBODY} from postgres"}
    is_stop = action.kind == Kind.STOP and action.target == SENDER
    return is_stop or action.kind in {*RECEIVER_TROUBLES, *DATABASE_TROUBLES}


def supervised(count: int) -> list[str]:
    """Return the cards of a supervisor's workers."""
    return [f"cpu:{number}" for number in range(count)]


def alone(count: int) -> list[str]:
    """Return the cards of the workers that nobody supervises."""
    return [f"cpu:{number}" for number in range(10, 10 + count)]


SENDER = alone(1)[0]  # the worker that also delivers the farm's events and sends its webhooks
