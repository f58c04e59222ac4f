"""What a worker process is told at its start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shared.settings import Settings
from worker.cards import Address


@dataclass(frozen=True)
class Orders:
    """Which card to serve, and how."""

    card: Address
    settings: Settings
    report: Callable[[int], object]  # told the id of the worker's row
