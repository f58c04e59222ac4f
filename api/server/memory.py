"""What the C library does with memory that is free again: large bodies come and go, and would leave it taken."""

from __future__ import annotations

import asyncio
import ctypes
from contextlib import suppress
from typing import Final

_MMAP_THRESHOLD: Final = -3  # mallopt(3) of glibc
_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 2**17  # among them bodies that stay in memory
_ARENAS: Final = 4
_TRIM_SECONDS: Final = 5.0


def give_back_early() -> None:
    """Have large pieces given back to the system at once, and small ones lie in few heaps. Only glibc needs it."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_ARENA_MAX, _ARENAS)


async def keep_giving_back() -> None:
    """Give back, again and again, what lies free between pieces that are in use."""
    with suppress(OSError, AttributeError):
        trim = ctypes.CDLL(None).malloc_trim
        while True:
            await asyncio.sleep(_TRIM_SECONDS)
            await asyncio.to_thread(trim, 0)
