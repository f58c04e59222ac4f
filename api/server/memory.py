"""What the C library does with memory that is free again: large bodies come and go, and would leave it taken."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_MMAP_THRESHOLD: Final = -3  # mallopt(3) of glibc
_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 2**20
_ARENAS: Final = 4


def give_back_early() -> None:
    """Have large pieces given back to the system at once, and small ones lie in few heaps. Only glibc needs it."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_ARENA_MAX, _ARENAS)
