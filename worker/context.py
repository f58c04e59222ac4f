"""The state that the threads of one worker share: its identity, its images in flight, and its servers."""

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
from worker.in_flight import InFlight
from worker.jobs_left import JobsLeft
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
    unreadable_jobs: JobsLeft = field(default_factory=JobsLeft)
    state: WorkerState = WorkerState.STARTING
    drained: str | None = None  # why it must take nothing new until it is resumed
    card_trouble: str | None = None  # why its card cannot be used, for people; it takes nothing then
    storage_away: str | None = None  # why the storage takes no pictures, for people; it takes nothing new then
    trouble: str | None = None  # why it is sick although it goes on, for people
    _lock: Lock = field(default_factory=Lock, repr=False)

    def replace_drained(self, before: str | None, drained: str | None) -> bool:
        """Set why it takes nothing new if that is still `before`; return False if another thread was faster."""
        with self._lock:
            is_as_before = self.drained == before
            if is_as_before:
                self.drained = drained
        return is_as_before

    @property
    def reported_trouble(self) -> str | None:
        """The fault of the worker or its card, for people."""
        return self.card_trouble or self.trouble

    @property
    def phase(self) -> str:
        """Its present work, for people."""
        away = None if self.state == WorkerState.STARTING else self.storage_away
        return self.card_trouble or away or self.trouble or self.card.phase()

    @property
    def takes_images(self) -> bool:
        return self.reported_state == WorkerState.READY and self.drained is None

    @property
    def reported_state(self) -> WorkerState:
        """The state that others see: without its card or the storage it is drained, and its phase says why."""
        is_waiting = self.state == WorkerState.READY and (self.card_trouble or self.storage_away)
        return WorkerState.DRAINED if is_waiting else self.state

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.in_flight)

    def as_policy_sees_it(self) -> policy.Worker:
        """Return this worker as it is now, because a shared snapshot is half a second old."""
        is_drained = self.reported_state == WorkerState.READY and self.drained
        return policy.Worker(
            id=self.id,
            pools=self.pools,
            state=WorkerState.DRAINED if is_drained else self.reported_state,
            resident=frozenset(self.card.resident()),
            free_slots=self.free_slots,
            load_seconds=self.card.load_seconds,
            name=self.name,
            memory_bytes=self.card.memory_bytes,
            precision=self.card.precision,
        )
