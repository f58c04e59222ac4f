"""Signals that a thread waits for: a handler that only wakes takes no lock, and nothing that is stuck delays it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from select import select
from typing import Self


class SignalPipe:
    """Some signals of this process as bytes of a pipe: none ends the process, none raises, each is read once.

    Begun, or entered and left, on the main thread; what the signals did before, they do again after the block. A
    process has one.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = frozenset(numbers)

    def begin(self) -> None:
        """Read the signals from now on: until the block ends, or for as long as the process lives."""
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _wake) for number in self._numbers}

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reading)
        os.close(self._writing)

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the next signal as soon as it is there, None after `seconds` without one. From any thread."""
        end = None if seconds is None else time.monotonic() + seconds
        while select([self._reading], [], [], None if end is None else max(0.0, end - time.monotonic()))[0]:
            number = os.read(self._reading, 1)[0]
            if number in self._numbers:  # the pipe gets those of other handlers too
                return number
        return None


def _wake(number: int, frame: object) -> None:
    """Do nothing: Python writes the number of a signal that has a handler into the pipe."""
