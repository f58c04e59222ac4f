"""Text that PostgreSQL can store."""

from __future__ import annotations

from typing import Final

REASON_CHARS: Final = 2000


def storable(reason: str) -> str:
    """Return `reason` without what PostgreSQL cannot store: messages quote file names and file contents."""
    return reason.encode(errors="replace").decode().replace("\x00", "?")[:REASON_CHARS]
