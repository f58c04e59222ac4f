"""What the threads of one worker share: who it is, what it carries, and the servers that it talks to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from types import MappingProxyType
from typing import Protocol

from redis import Redis

from shared.db.farm import FarmId
from shared.db.sessions import Sessions
from shared.db.states import WorkerState
from shared.errors import RenderError
from shared.media.storage import Storage
from shared.messaging.events import Events
from shared.messaging.tickets import Tickets
from shared.models.memory import Precision
from shared.queue import policy
from shared.queue.claim import Claim
from shared.settings import Settings
from worker.cards import Address
from worker.carried import Cancellation, Carried
from worker.pictures import Rendered
from worker.progress import Watch
from worker.pulse import Pulse
from worker.unread import Unread


class Card(Protocol):
    """The one door between the slots and what renders."""

    @property
    def slots(self) -> int:
        """How many images to carry at once, so that the card is never short of rows."""

    @property
    def load_seconds(self) -> float | None:
        """What the latest checkpoint took to load from its file, measured."""

    @property
    def memory_bytes(self) -> int | None:
        """What its memory holds; None where it has none of its own."""

    @property
    def precision(self) -> Precision:
        """In which precision it renders."""

    @property
    def broken_calls(self) -> Mapping[str, int]:
        """How many calls of networks failed since the start, by cause, also where a smaller one then succeeded."""

    @property
    def is_lost(self) -> bool:
        """True when nothing can be rendered here any more and only a new process helps."""

    def resident(self) -> list[str]:
        """Return the SHA-256 of the checkpoints in memory."""

    def phase(self) -> str:
        """Return what the card does now, for people."""

    def render(self, claim: Claim, watch: Watch, cancel: Cancellation) -> Rendered:
        """Return the picture of `claim`, with its steps where it asks for a film.

        Raises RenderError; Cancelled soon after `cancel` is set.
        """

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the host keeps checkpoints for it, so that it has use for `prefetch`."""

    def prefetch(self, checkpoint: str) -> None:
        """Have a checkpoint (SHA-256) ready for a load that may come next, if there is time. Returns at once."""

    def stop(self) -> None:
        """Let go of the card; nothing is rendered now."""


MakeCard = Callable[[Address, Settings, Sessions, Callable[[], object], Pulse], Card]
"""Brings a card up and returns it. The callable is to be called when its phase or what is resident changes; the pulse
is told whenever the card begins something that could hang."""


class NoCard:
    """What a worker has while its card comes up."""

    slots = 0
    load_seconds = None
    memory_bytes = None
    precision: Precision = "half"
    broken_calls: Mapping[str, int] = MappingProxyType({})
    is_lost = False
    keeps_checkpoints = False

    def resident(self) -> list[str]:
        return []

    def phase(self) -> str:
        return "starting"

    def render(self, claim: Claim, watch: Watch, cancel: Cancellation) -> Rendered:  # noqa: ARG002 - as every card
        raise RenderError(f"image {claim.image_id} was claimed before the card was up")

    def prefetch(self, checkpoint: str) -> None: ...

    def stop(self) -> None: ...


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
    carried: Carried = field(default_factory=Carried)
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
    def told_trouble(self) -> str | None:
        """What is wrong with it, for people."""
        return self.card_trouble or self.trouble

    @property
    def phase(self) -> str:
        """What it does now, for people."""
        away = None if self.state == WorkerState.STARTING else self.storage_away
        return self.card_trouble or away or self.trouble or self.card.phase()

    @property
    def takes_images(self) -> bool:
        return self.told_state == WorkerState.READY and self.drained is None

    @property
    def told_state(self) -> WorkerState:
        """What others are told: without its card or the storage it takes nothing new, and its phase says why."""
        is_waiting = self.state == WorkerState.READY and (self.card_trouble or self.storage_away)
        return WorkerState.DRAINED if is_waiting else self.state

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.carried)

    def as_policy_sees_it(self) -> policy.Worker:
        """Return this worker as it is now: a shared snapshot is half a second old."""
        return policy.Worker(
            id=self.id,
            pools=self.pools,
            state=WorkerState.DRAINED if self.told_state == WorkerState.READY and self.drained else self.told_state,
            resident=frozenset(self.card.resident()),
            free_slots=self.free_slots,
            load_seconds=self.card.load_seconds,
            name=self.name,
            memory_bytes=self.card.memory_bytes,
            precision=self.card.precision,
        )
