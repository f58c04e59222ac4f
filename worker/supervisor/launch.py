"""What a worker process is told at its start."""

from __future__ import annotations

from dataclasses import dataclass

from shared.settings import Settings
from worker.supervisor.gpus import Address
from worker.supervisor.status_pipe import Report


@dataclass(frozen=True)
class Orders:
    """Which card to serve, and how."""

    card: Address
    settings: Settings
    report: Report
