"""The row limits that workers of this machine measured before, and where a worker on a CPU stores new ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from shared import row_limit_files
from shared.row_limit_files import Processor, StoredLimit
from worker.engine import devices
from worker.engine.row_limits import RowLimit


def processor() -> Processor:
    """Return what decides how this process's calls round on the CPU."""
    return Processor(devices.processor_name(), torch.get_num_threads(), torch.__version__)


def stored(home: Path, processor: Processor) -> tuple[dict[str, RowLimit], Callable[[str, RowLimit], None]]:
    """Return the limits that the farm at `home` has for `processor`, and a function that stores another one."""
    file = row_limit_files.path(home, processor)
    known = {shape: RowLimit(*limit) for shape, limit in row_limit_files.opened(file, processor).items()}

    def store(shape: str, limit: RowLimit) -> None:
        row_limit_files.add(file, shape, StoredLimit(*limit))

    return known, store
