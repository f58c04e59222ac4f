"""What the inspector asks its child; apart from both, because neither has a use for what the other imports."""

from __future__ import annotations

from typing import Final

PLACES: Final = b"\0"  # before the path in a question for places: no path begins with it
