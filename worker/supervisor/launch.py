"""The values that a worker's process starts with."""

from __future__ import annotations

from dataclasses import dataclass

from shared.settings import Settings
from worker.supervisor.gpus import Address
from worker.supervisor.status_pipe import StatusWriter


@dataclass(frozen=True)
class Launch:
    """The card that a worker's process serves, its settings, and its end of the pipe to the supervisor."""

    card: Address
    settings: Settings
    status: StatusWriter
