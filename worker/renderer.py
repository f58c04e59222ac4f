"""The contract between the slots and what renders, which needs neither a database nor a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from shared.db.sessions import Sessions
from shared.errors import RenderError
from shared.models.memory import Precision
from shared.queue.claim import Claim
from shared.settings import Settings
from worker.encode import Pixels
from worker.in_flight import Cancellation
from worker.progress.reporter import Watch
from worker.supervisor.gpus import Address
from worker.supervisor.watchdog import Pulse


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
        """What its memory holds; None if it has none of its own."""

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


@dataclass(frozen=True, eq=False)
class Frame:
    """What a picture was to become, at one step of its rendering."""

    step: int
    steps: int
    pixels: Pixels


@dataclass(frozen=True, eq=False)
class Rendered:
    """What a card makes of a claim: the picture; and where a film was asked for, steps to it, and how many there were.

    Before its end, a run of an adaptive sampler only estimates how many there will be.
    """

    pixels: Pixels
    frames: tuple[Frame, ...] = ()
    steps: int = 0
