"""The models folder as seen from here, before a worker has looked into it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from client.client import Client
from shared.models import scan
from shared.settings import Settings

_SCAN_SECONDS: Final = 120.0  # importing PyTorch on a busy machine, then hashing the first files
_PAUSE_SECONDS: Final = 0.25


def files(folder: Path) -> list[Path]:
    """Return what in a models folder looks like one of its files; a folder that is not there holds nothing."""
    found: list[Path] = []
    with suppress(OSError):
        found.extend(scan.model_files(folder))
    return found


def await_first(client: Client, settings: Settings) -> None:
    """Wait until a farm that has just started knows what lies in its models folder: it refuses what it does not know.

    Rows of earlier runs do not count. Unreadable files are not waited for, and the wait is limited.
    """
    deadline = time.monotonic() + _SCAN_SECONDS
    while time.monotonic() < deadline:
        readable = [path for path in files(settings.models) if os.access(path, os.R_OK)]
        there = {path.relative_to(settings.models).as_posix() for path in readable}
        if not there or there <= {one["path"] for one in client.models()}:
            return
        time.sleep(_PAUSE_SECONDS)
