"""The ways to show a picture in a terminal."""

from __future__ import annotations

from enum import StrEnum


class Show(StrEnum):
    """How to show a picture."""

    AUTO = "auto"
    KITTY = "kitty"
    SIXEL = "sixel"
    BLOCKS = "blocks"
    NEVER = "never"
