"""The models folder as seen from here, before a worker has looked into it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from api.cli.client import Client
from shared.settings import Settings

_SUFFIXES: Final = frozenset({".safetensors", ".ckpt"})
_SCAN_SECONDS: Final = 120.0  # importing PyTorch on a busy machine, then hashing the first file
_PAUSE_SECONDS: Final = 0.25


def files(folder: Path) -> list[Path]:
    """Return what lies in a models folder and looks like a checkpoint; a folder that is not there holds nothing."""
    return [path for path in folder.rglob("*") if path.suffix in _SUFFIXES]


def await_first(client: Client, settings: Settings) -> None:
    """Wait until a farm that has just started knows its checkpoints: until its first scan it refuses every job."""
    deadline = time.monotonic() + _SCAN_SECONDS
    while files(settings.models) and time.monotonic() < deadline:
        if client.catalogue("checkpoints")["checkpoints"]:
            return
        time.sleep(_PAUSE_SECONDS)
