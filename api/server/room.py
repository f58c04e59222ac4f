"""Bytes on their way between clients and the farm: few of them in memory, more in files, within one bound for all."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Final

from shared.errors import Unavailable

MEMORY_BYTES: Final = 2**18  # of one body or answer; what is longer lies in a file


class Room:
    """The bytes of disk that all bodies and answers on their way may take together. Safe for many threads."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Take `size` bytes of it. Raises Unavailable where there are fewer."""
        with self._lock:
            if size > self._free:
                raise Unavailable("Too many large bodies and answers are on their way: try again later.")
            self._free -= size

    def give(self, size: int) -> None:
        """Give `size` bytes back."""
        with self._lock:
            self._free += size


class Spool:
    """One body, or a part of an answer: written, then read from its start. Used by one thread at a time."""

    def __init__(self, room: Room) -> None:
        self.size = 0
        self.file = SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115 - it outlives this call; `close` ends it
        self.room = room
        self._taken = 0

    def write(self, data: bytes) -> None:
        """Add `data`. Raises Unavailable where neither room nor disk is left."""
        size = self.size + len(data)
        if size > MEMORY_BYTES:
            self.room.take(size - self._taken)
            self._taken = size
        try:
            self.file.write(data)
        except OSError as error:
            raise Unavailable(f"The farm has no place for a body of this size now: {error.strerror}.") from error
        self.size = size

    def close(self) -> None:
        """Forget the bytes, and give their room back. May be called again."""
        self.file.close()
        self.room.give(self._taken)
        self._taken = 0
