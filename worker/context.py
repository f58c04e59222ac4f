"""What the threads of one worker share: who it is, what it carries, and the servers that it talks to."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from redis import Redis

from shared.db.farm import FarmId
from shared.db.sessions import Sessions
from shared.db.states import WorkerState
from shared.media.storage import Storage
from shared.messaging.events import Events
from shared.messaging.tickets import Tickets
from shared.queue import policy
from shared.settings import Settings
from worker.dispatch.unread import Unread
from worker.in_flight import InFlight
from worker.renderer import Card, NoCard


@dataclass
class Worker:
    """One start of one worker process."""

    id: int
    name: str
    pools: tuple[str, ...]
    slots: int
    settings: Settings
    sessions: Sessions
    farm_id: FarmId
    redis: Redis
    events: Events
    tickets: Tickets
    storage: Storage
    card: Card = field(default_factory=NoCard)
    in_flight: InFlight = field(default_factory=InFlight)
    unread: Unread = field(default_factory=Unread)
    state: WorkerState = WorkerState.STARTING
    drained: str | None = None  # why it is to take nothing new until it is resumed
    card_trouble: str | None = None  # why its card cannot be used, and so this worker takes nothing, for people
    storage_away: str | None = None  # why the storage takes no pictures, and this worker so nothing new, for people
    trouble: str | None = None  # why it should take nothing new and does, for people
    _lock: Lock = field(default_factory=Lock, repr=False)

    def replace_drained(self, before: str | None, drained: str | None) -> bool:
        """Set why it takes nothing new if that is still what it was `before`; False where somebody else was faster."""
        with self._lock:
            is_as_before = self.drained == before
            if is_as_before:
                self.drained = drained
        return is_as_before

    @property
    def reported_trouble(self) -> str | None:
        """What is wrong with it, for people."""
        return self.card_trouble or self.trouble

    @property
    def phase(self) -> str:
        """What it does now, for people."""
        away = None if self.state == WorkerState.STARTING else self.storage_away
        return self.card_trouble or away or self.trouble or self.card.phase()

    @property
    def takes_images(self) -> bool:
        return self.reported_state == WorkerState.READY and self.drained is None

    @property
    def reported_state(self) -> WorkerState:
        """What others are told: without its card or the storage it takes nothing new, and its phase says why."""
        is_waiting = self.state == WorkerState.READY and (self.card_trouble or self.storage_away)
        return WorkerState.DRAINED if is_waiting else self.state

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.in_flight)

    def as_policy_sees_it(self) -> policy.Worker:
        """Return this worker as it is now: a shared snapshot is half a second old."""
        state = self.reported_state
        return policy.Worker(
            id=self.id,
            pools=self.pools,
            state=WorkerState.DRAINED if self.drained and state == WorkerState.READY else state,
            resident=frozenset(self.card.resident()),
            free_slots=self.free_slots,
            load_seconds=self.card.load_seconds,
            name=self.name,
            memory_bytes=self.card.memory_bytes,
            precision=self.card.precision,
        )
