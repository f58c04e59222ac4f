"""The models folders as seen from here, before a worker has looked into it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Final

from client.client import Client
from shared.models import scan
from shared.models.folders import ModelFolders, ModelPath
from shared.settings import Settings

_SCAN_SECONDS: Final = 120.0  # importing PyTorch on a busy machine, then hashing the first files
_PAUSE_SECONDS: Final = 0.25


def files(models: ModelFolders) -> list[ModelPath]:
    """Return what in the models folders looks like one of their files; a folder that is not there holds nothing."""
    found: list[ModelPath] = []
    with suppress(OSError):
        found.extend(scan.model_files(models))
    return found


def await_first(client: Client, settings: Settings) -> None:
    """Wait until a farm that has just started knows what lies in its models folder: it refuses what it does not know.

    Rows of earlier runs do not count. Unreadable files are not waited for, and the wait is limited.
    """
    deadline = time.monotonic() + _SCAN_SECONDS
    while time.monotonic() < deadline:
        there = {file.name for file in files(settings.models) if os.access(file.path, os.R_OK)}
        if not there or there <= {one["path"] for one in client.models()}:
            return
        time.sleep(_PAUSE_SECONDS)
