"""When a job may have changed, as the lines of its stream of events tell."""

from __future__ import annotations

import time
from typing import Final

LIVE_SECONDS: Final = 0.2  # progress comes more often than anybody can read
_OFTEN: Final = frozenset({"progress", "preview"})  # events that come several times a second


class Changes:
    """Reads a stream of server-sent events line by line."""

    def __init__(self) -> None:
        self._kind = ""
        self._told_at = 0.0

    def tell(self, line: str) -> bool:
        """Return whether the line ends an event (or comment) to look after; not for progress that follows too soon."""
        if line.startswith("event:"):
            self._kind = line.removeprefix("event:").strip()
        if line:
            return False
        kind, self._kind = self._kind, ""
        if kind in _OFTEN and time.monotonic() - self._told_at < LIVE_SECONDS:
            return False
        self._told_at = time.monotonic()
        return True
