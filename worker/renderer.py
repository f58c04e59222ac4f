"""The contract between the slots and what renders. It needs neither a database nor a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from shared.db.sessions import Sessions
from shared.errors import RenderError
from shared.media.making import Making
from shared.models.memory import Precision
from shared.queue.claim import Claim
from shared.queue.workers import ResidentModel
from shared.settings import Settings
from worker.encode import Pixels
from worker.in_flight import Cancellation
from worker.progress.reporter import ImageProgress
from worker.supervisor.gpus import Address
from worker.supervisor.watchdog import Watchdog


class Card(Protocol):
    """The card of a worker, as its slots use it."""

    @property
    def slots(self) -> int:
        """How many images to carry at once, so that the card is never short of rows."""

    @property
    def load_seconds(self) -> float | None:
        """How long the latest checkpoint took to load from its file."""

    @property
    def memory_bytes(self) -> int | None:
        """The size of its memory; None if it has no memory of its own."""

    @property
    def host_bytes(self) -> int:
        """The memory of the host that models take: resident ones on a CPU, and those that the host keeps for a card."""

    @property
    def precision(self) -> Precision:
        """In which precision it renders."""

    @property
    def broken_calls(self) -> Mapping[str, int]:
        """How many calls of networks failed since the start, by cause, even if a smaller call then succeeded."""

    @property
    def is_lost(self) -> bool:
        """True when nothing can be rendered here any more and only a new process helps."""

    def resident(self) -> list[str]:
        """Return the SHA-256 of the checkpoints in memory."""

    def models(self) -> list[ResidentModel]:
        """Return the models in memory, with the bytes that each takes."""

    def phase(self) -> str:
        """Return what the card does now, for people."""

    def render(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> Rendered:
        """Return the picture of `claim`, with frames if a film is wanted.

        Raises RenderError; Cancelled soon after `cancel` is set.
        """

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the host keeps checkpoints for it, so that `prefetch` helps."""

    def prefetch(self, checkpoint: str) -> None:
        """Have a checkpoint (SHA-256) ready for a load that may come next, if there is time. Returns at once."""

    def stop(self) -> None:
        """Release the card, when nothing is rendered."""


MakeCard = Callable[[Address, Settings, Sessions, Callable[[], object], Watchdog], Card]
"""Brings a card up and returns it. The card calls the callable when its phase or its resident checkpoints change, and
reports to the watchdog whenever it begins something that could hang."""


class NoCard:
    """The card of a worker whose real one is still coming up."""

    slots = 0
    load_seconds = None
    memory_bytes = None
    host_bytes = 0
    precision: Precision = "half"
    broken_calls: Mapping[str, int] = MappingProxyType({})
    is_lost = False
    keeps_checkpoints = False

    def resident(self) -> list[str]:
        return []

    def models(self) -> list[ResidentModel]:
        return []

    def phase(self) -> str:
        return "starting"

    def render(self, claim: Claim, progress: ImageProgress, cancel: Cancellation) -> Rendered:  # noqa: ARG002 - as every card
        raise RenderError(f"image {claim.image_id} was claimed before the card was up")

    def prefetch(self, checkpoint: str) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """The picture as it stood at one step of its rendering."""

    step: int
    steps: int
    pixels: Pixels


@dataclass(frozen=True, eq=False)
class Rendered:
    """A rendered picture; for a film also its frames, and the number of steps that were made. `making`: if it is kept.

    An adaptive sampler only estimates the number of steps before its end, so a frame may show another one.
    """

    pixels: Pixels
    frames: tuple[Frame, ...] = ()
    steps: int = 0
    making: Making | None = None
