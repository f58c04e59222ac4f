"""What a worker process is told at its start."""

from __future__ import annotations

from dataclasses import dataclass

from shared.settings import Settings
from worker.cards import Address
from worker.report import Report


@dataclass(frozen=True)
class Orders:
    """Which card to serve, and how."""

    card: Address
    settings: Settings
    report: Report
