"""Bytes on their way between clients and the farm: few of each in memory, more in files, within one bound for all."""

from __future__ import annotations

from collections import Counter
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Final

from shared.errors import Unavailable

MEMORY_BYTES: Final = 2**18  # of one body or answer; what is longer lies in a file


class Room:
    """The bytes that bodies and answers on their way may take together, those of one address no more than `share`.

    A quarter is kept for answers. Safe for many threads.
    """

    def __init__(self, size: int, share: int) -> None:
        self._free = size
        self._free_for_bodies = size - size // 4
        self._share = share
        self._taken: Counter[str] = Counter()
        self._lock = Lock()

    def take(self, size: int, address: str, *, is_body: bool) -> None:
        """Take `size` bytes of it. Raises Unavailable if fewer are left."""
        with self._lock:
            free = min(self._free, self._free_for_bodies) if is_body else self._free
            if size > free or self._taken[address] + size > self._share:
                raise Unavailable("Too many large bodies and answers are in transit: try again later.")
            self._count(size, address, is_body=is_body)

    def give(self, size: int, address: str, *, is_body: bool) -> None:
        """Give `size` bytes back."""
        with self._lock:
            self._count(-size, address, is_body=is_body)

    def _count(self, size: int, address: str, *, is_body: bool) -> None:
        self._free -= size
        self._free_for_bodies -= size if is_body else 0
        self._taken[address] += size
        if not self._taken[address]:
            del self._taken[address]


class Spool:
    """One body, or a part of an answer: written, then read from its start. Used by one thread at a time."""

    def __init__(self, room: Room, address: str, *, is_body: bool = False) -> None:
        self.size = 0
        self.file = SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - it outlives this call; `close` ends it
        self._room = room
        self.address = address
        self._is_body = is_body
        self._taken = 0

    def write(self, data: bytes) -> None:
        """Add `data`. Raises Unavailable where neither room nor disk is left."""
        size = self.size + len(data)
        if self._is_body or size > MEMORY_BYTES:  # strangers may send bodies, but get small answers alone
            self._room.take(size - self._taken, self.address, is_body=self._is_body)
            self._taken = size
        try:
            self.file.write(data)
        except OSError as error:
            raise Unavailable(f"The farm has no space for a body of this size now: {error.strerror}.") from error
        self.size = size

    def close(self) -> None:
        """Forget the bytes, and give their room back. May be called again."""
        self.file.close()
        self._room.give(self._taken, self.address, is_body=self._is_body)
        self._taken = 0
